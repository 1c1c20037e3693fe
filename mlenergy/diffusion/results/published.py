"""The published figures that the package holds: the ML.ENERGY leaderboard, version 3."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

Task = Literal["text-to-image", "text-to-video"]

# Published ids of models whose files for diffusers lie at another one.
_HUB_IDS = {"tencent/HunyuanVideo": "hunyuanvideo-community/HunyuanVideo"}

SOURCE = "ML.ENERGY leaderboard v3 (xDiT 0.4.5, eager, bfloat16)"
XDIT_VERSION = "0.4.5"


@dataclass(frozen=True)
class PublishedRun:
    """One published configuration.

    Attributes:
        model_id: of the files that diffusers loads.
        gpu: short name (H100).
        dtype: of the denoiser's weights.
        num_frames, fps: of a video; None of an image.
        duration_s: of one batch.
        energy_per_output_j: all GPUs, of one image or video.
    """

    task: Task
    model_id: str
    gpu: str
    gpus: int
    ulysses: int
    ring: int
    batch_size: int
    height_px: int
    width_px: int
    num_frames: int | None
    fps: int | None
    steps: int
    dtype: str
    duration_s: float
    energy_per_output_j: float


def published_runs(task: Task) -> tuple[PublishedRun, ...]:
    """Every published configuration of a task, in the order of its file."""
    return _runs(task)


@cache
def _runs(task: Task) -> tuple[PublishedRun, ...]:
    file = resources.files("mlenergy.diffusion") / "data" / f"published-{task}.csv"
    return tuple(_run(task, line) for line in csv.DictReader(file.read_text("utf-8").splitlines()))


def _run(task: Task, line: Mapping[str, str]) -> PublishedRun:
    noun = task.rpartition("-")[2]
    is_video = task == "text-to-video"
    return PublishedRun(
        task=task,
        model_id=_HUB_IDS.get(line["model_id"], line["model_id"]),
        gpu=line["gpu_model"],
        gpus=int(line["num_gpus"]),
        ulysses=int(line["ulysses_degree"]),
        ring=int(line["ring_degree"]),
        batch_size=int(line["batch_size"]),
        height_px=int(line[f"{noun}_height"]),
        width_px=int(line[f"{noun}_width"]),
        num_frames=int(line["num_frames"]) if is_video else None,
        fps=int(line["fps"]) if is_video else None,
        steps=int(line["inference_steps"]),
        dtype=line["weight_precision"],
        duration_s=float(line["batch_latency_s"]),
        energy_per_output_j=float(line[f"energy_per_{noun}_joules"]),
    )
