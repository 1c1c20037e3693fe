"""Published figures beside the measured ones: the public ML.ENERGY leaderboard, version 3."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

SOURCE = "ML.ENERGY leaderboard v3"
_FILES = {
    "text-to-image": ("published-text-to-image.csv", "image"),
    "text-to-video": ("published-text-to-video.csv", "video"),
}


@cache
def published_rows() -> tuple[dict[str, Any], ...]:
    """Rows of the same shape as those of measured runs; what was not published is None."""
    return tuple(row for task in _FILES for row in _rows(task))


def _rows(task: str) -> Iterator[dict[str, Any]]:
    file, noun = _FILES[task]
    text = (resources.files("mlenergy.diffusion") / "data" / file).read_text("utf-8")
    for line in csv.DictReader(text.splitlines()):
        yield _row(task, noun, line)


def _row(task: str, noun: str, line: Mapping[str, str]) -> dict[str, Any]:
    degrees = [("Ulysses", line["ulysses_degree"]), ("ring", line["ring_degree"])]
    batch, latency_s = int(line["batch_size"]), float(line["batch_latency_s"])
    return {
        "name": f"{SOURCE}: {line['model_id']}",
        "source": "published",
        "task": task,
        "model": line["model_id"],
        "parameters": float(line["total_params_billions"]) * 1e9,
        "gpu": line["gpu_model"],
        "gpus": int(line["num_gpus"]),
        "on_gpu": True,
        "parallel": " × ".join(f"{name} {degree}" for name, degree in degrees if int(degree) > 1),
        "engine": None,
        "batch": batch,
        "width": int(line[f"{noun}_width"]),
        "height": int(line[f"{noun}_height"]),
        **_of_video(line, batch, latency_s),
        "steps": int(line["inference_steps"]),
        "precision": line["weight_precision"],
        "options": "",
        "s": latency_s / batch,
        "latency": latency_s,
        "ips": float(line[f"throughput_{noun}s_per_sec"]),
        "j": float(line[f"energy_per_{noun}_joules"]),
        "w": float(line["avg_power_watts"]),
        "gb": None,
        "gb_reason": "not published",
        "warnings": [],
    }


def _of_video(line: Mapping[str, str], batch: int, latency_s: float) -> dict[str, Any]:
    if "num_frames" not in line:
        return {}
    frames, fps = int(line["num_frames"]), int(line["fps"])
    rate = batch * frames / latency_s
    return {"frames": frames, "fps": fps, "frames_per_s": rate, "real_time": fps / rate}
