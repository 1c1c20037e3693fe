"""Whole runs to their files: which requests each window has, and whose images are whose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import forked
import numpy as np
import pytest
import torch.distributed as dist
from fake_engine import FakeEngine, effects, image_of
from PIL import Image

import mlenergy.diffusion.benchmark as benchmark
from mlenergy.diffusion import run
from mlenergy.diffusion.measure import window

SUPPORT = Path(__file__).parent / "support"


def words_of(base, *options):
    words = ["--engine", "diffusers", "--device", "cpu", *options]
    words += ["workload:t2i", "--workload.model_id", "tiny/flux", "--workload.dataset", "bundled"]
    words += ["--workload.height", "64", "--workload.width", "64", "--workload.inference_steps", "2"]
    return [*words, "--workload.base_dir", str(base), "--workload.seed", "500"]


def content(base):
    """The one result's folder, requests and results."""
    (folder,) = base.iterdir()
    return folder, *(json.loads((folder / name).read_text()) for name in ("requests.json", "results.json"))


def check_images(base, count):
    """Every image that the result names is the one of its own prompt and seed, each once and in order."""
    folder, requests, result = content(base)
    images = result["generation_results"]
    assert result["completed"] == len(images) == len(result["prompts"]) == count
    assert len(list((folder / "image_outputs").iterdir())) == count
    for index, (image, request) in enumerate(zip(images, requests["requests"], strict=False)):
        assert (image["index"], image["seed"], image["prompt"]) == (index, 500 + index, request["prompt"])
        with Image.open(folder / image["image"]) as stored:
            expected = (image_of(500 + index) * 255).round().byte().permute(1, 2, 0).numpy()
            assert (np.asarray(stored) == expected).all(), f"image {index} is another request's"
    return requests, result


def test_data_parallel_groups_images_are_saved_under_their_own_prompts(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = words_of(tmp_path / "base", "--data_parallel_degree", "2", "--benchmark_iters", "2")
    command = [*torchrun, str(SUPPORT / "fake_engine.py"), *words, "--workload.batch_size", "4"]
    done = forked.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    _, result = check_images(tmp_path / "base", 8)
    assert [image["iteration"] for image in result["generation_results"]] == [0] * 4 + [1] * 4
    assert (
        result["configuration"]["parallel"]["data"] == result["configuration"]["parallel"]["world_size"] == 2
    )
    assert [rank["rank"] for rank in result["memory"]["ranks"]] == [0, 1] and len(result["load"]) == 2


class Timed(FakeEngine):
    """Each call takes as long as the test says, on the test's own clock."""

    def __init__(self, seconds) -> None:
        super().__init__(effects)
        self.seconds, self.now_s = iter(seconds), 0.0

    def generate(self, batch):
        self.now_s += next(self.seconds)
        return super().generate(batch)


@pytest.fixture
def finished(tmp_path, monkeypatch, capfd):
    """Run in this process with calls of these seconds."""

    def finish(seconds, *options):
        engine = Timed(seconds)
        monkeypatch.setattr(window, "time", SimpleNamespace(monotonic=lambda: engine.now_s))
        monkeypatch.setattr(run, "load_engine", lambda plan, cluster: engine)
        words = words_of(tmp_path / "base", "--warmup_iters", "1", *options)
        monkeypatch.setattr(sys, "argv", ["benchmark", *words, "--workload.batch_size", "2"])
        try:
            assert benchmark.main() == 0, capfd.readouterr().err
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
        return tmp_path / "base"

    return finish


def test_target_ci_has_requests_for_as_many_windows_as_there_may_be(finished):
    # Every other window takes twice as long: never certain to 1 %.
    uncertain = ["--target_ci", "0.01", "--benchmark_iters", "2", "--max_iters", "7"]
    requests, result = check_images(finished([9.0, *[1.0, 2.0] * 4], *uncertain), 14)
    assert len(result["iterations"]) == 7 and result["generation_time"] == 10.0
    assert result["warmup_s"] == [9.0]
    assert len(requests["requests"]) == 14 and len(requests["warmup_requests"]) == 2
    assert len(set(result["prompts"])) == 14, "no prompt is taken again for the later windows"


def test_target_ci_ends_where_the_interval_is_narrow_but_not_before_benchmark_iters(finished):
    base = finished([9.0, 1.0, 1.2, 1.1, *[1.1] * 20], "--target_ci", "0.05", "--benchmark_iters", "3")
    _, _, result = content(base)
    durations_s = [window["duration_s"] for window in result["iterations"]]
    half = result["statistics"]["duration_s"]["ci95_half_width"]
    assert 3 < len(durations_s) < 20 and half <= 0.05 * np.mean(durations_s)
    without_last = np.array(durations_s[:-1])
    assert len(without_last) >= 3 and without_last.std(ddof=1) > 0
    check_images(base, 2 * len(durations_s))


def test_without_target_ci_there_are_exactly_benchmark_iters(finished):
    _, result = check_images(finished([9.0, 1.0, 1.0, 1.0, 5.0], "--benchmark_iters", "3"), 6)
    assert [window["duration_s"] for window in result["iterations"]] == [1.0] * 3
