"""Whole studies on tiny models, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest

MLENERGY = str(Path(sys.executable).with_name("mlenergy"))
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.full


def study(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [MLENERGY, "study", "run", *words]
    return forked.run(command, cwd=folder, capture_output=True, text=True, env=ENVIRON, timeout=300)


def tables(folder: Path, name: str) -> dict[str, Any]:
    told = json.loads((folder / "run" / "studies" / name / "report.json").read_text())
    return {key: table["rows"] for key, table in told["tables"].items()}


def test_scaling(tmp_path):
    sizes = ["--sizes", "64", "128", "--at_size", "64", "--steps", "1", "3", "--at_steps", "1"]
    done = study(tmp_path, "scaling", "--models", "tiny/sdxl", *sizes, "--iters", "2", "--set", "device=cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    found = tables(tmp_path, "scaling")
    assert [row["pixels"] for row in found["points_size"]] == [64 * 64, 128 * 128]
    assert [row["steps"] for row in found["points_steps"]] == [1, 3]
    # One step of 64 pixels belongs to both sweeps, and runs once.
    assert found["points_size"][0]["time_per_image_s"] == found["points_steps"][0]["time_per_image_s"]
    assert len([*tmp_path.glob("run/studies/scaling/results/*/results.json")]) == 3
    by_quantity = {(row["dimension"], row["quantity"]): row for row in found["exponents"]}
    denoising = by_quantity["denoising steps", "seconds of denoising"]
    assert denoising["exponent"] > 0 and denoising["standard_error"] is None
    assert "two points" in denoising["reasons"]["standard_error"]
    assert by_quantity["denoising steps", "joules an image"]["exponent"] is None


def test_scaling_of_videos(tmp_path):
    words = ["--models", "tiny/wan", "--sizes", "64", "--frames", "5", "9", "--steps", "1", "--at_size", "64"]
    words += ["--at_steps", "1", "--at_frames", "5", "--iters", "2", "--set", "device=cpu"]
    done = study(tmp_path, "scaling", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    found = tables(tmp_path, "scaling")
    assert [row["frames"] for row in found["points_frames"]] == [5, 9]
    assert all(row["time_per_video_s"] > 0 for row in found["points_frames"])
    files = [*tmp_path.glob("run/studies/scaling/results/*/results.json")]
    assert len(files) == 2, "the same run of several sweeps runs once"
    [over_frames] = [
        row
        for row in found["exponents"]
        if (row["dimension"], row["quantity"]) == ("frames of a video", "seconds of denoising")
    ]
    assert over_frames["exponent"] is not None and over_frames["points"] == 2


def test_vram_on_a_cpu(tmp_path):
    words = ["--models", "tiny/sdxl", "absent/model", "--size", "64", "--steps", "1", "--dtype", "float32"]
    done = study(tmp_path, "vram", *words, "--set", "device=cpu")
    assert done.returncode == 0, done.stdout + done.stderr  # what cannot work is a gap, not a failure
    found = tables(tmp_path, "vram")
    here, absent = found["models"]
    assert here["peak_memory_gb"] is None and here["load_s"] > 0 and 0.05 < here["host_memory_gb"] < 50
    assert absent["time_per_image_s"] is None and "absent/model" in absent["reasons"]["time_per_image_s"]
    assert [row["batch"] for row in found["batches"]] == [1, 1]  # no series where there is no card
    folder = tmp_path / "run" / "studies" / "vram"
    log = json.loads((folder / "memory_log.json").read_text())["tiny/sdxl"]
    assert [row["host_gb"] > 0 for row in log] == [True] * 6 and all(row["gpu_gb"] is None for row in log)
    assert "VAE decoding" in (folder / "memory_log.txt").read_text()


def test_the_leaderboard_on_stand_ins(tmp_path):
    words = ["mlenergy-v3", "--stand_ins", "--quick", "--parts", "image", "--iters", "2", "--models"]
    words += ["black-forest-labs/FLUX.1-dev", "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"]
    cpu = ["--set", "device=cpu", "--set", "height=64", "--set", "width=64", "--set", "inference_steps=2"]
    done = study(tmp_path, *words, *cpu)
    assert done.returncode == 0, done.stdout + done.stderr
    found = tables(tmp_path, "mlenergy-v3")
    cells = found["image_cells"]
    assert [(row["model"], row["gpus"]) for row in cells] == [
        (model, gpus) for model in ("tiny/pixart-sigma", "tiny/flux") for gpus in (1, 2)
    ]
    assert all(row["batch_s"] > 0 and row["seconds_ratio"] is None for row in cells)
    assert "stands in for the published one" in cells[0]["reasons"]["seconds_ratio"]
    files = [*tmp_path.glob("run/studies/mlenergy-v3/results/*/results.json")]
    assert len(files) == 4
    before = [file.stat().st_mtime_ns for file in files]
    assert study(tmp_path, *words, *cpu).returncode == 0
    assert [file.stat().st_mtime_ns for file in files] == before, "complete runs are kept"


def test_mlperf_on_a_stand_in(tmp_path):
    (tmp_path / "prompts.txt").write_text("a fox in the snow\na boat on a lake\na tram in the rain\n")
    words = ["mlperf-wan2.2", "--stand_in", "--prompts", "prompts.txt", "--queries", "3"]
    done = study(tmp_path, *words, "--gpu_counts", "1", "2", "--modes", "cfg", "--set", "device=cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not a submission to MLPerf" in done.stdout and "Fewer queries than the 50" in done.stdout
    found = tables(tmp_path, "mlperf-wan2.2")
    assert sorted((row["gpus"], row["cfg"], row["queries"]) for row in found["latencies"]) == [
        (1, 1, 3),
        (2, 2, 3),
    ]
    assert all(0 < row["latency_p50_s"] <= row["latency_p90_s"] for row in found["latencies"])
    assert all(row["energy_per_video_j"] is None for row in found["latencies"])
    files = [*tmp_path.glob("run/studies/mlperf-wan2.2/results/*/results.json")]
    prompts = {tuple(json.loads(file.read_text())["prompts"]) for file in files}
    assert prompts == {("a fox in the snow", "a boat on a lake", "a tram in the rain")}
    by_name = {row["setting"]: row for row in found["settings"]}
    assert by_name["boundary_ratio"]["same"] and not by_name["height"]["same"]
