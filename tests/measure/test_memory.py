"""Peaks of the stages, on components that keep known bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mlenergy.diffusion.measure import memory
from mlenergy.diffusion.measure.memory import NO_RESET, MemoryWatch

WORKER = Path(__file__).parents[1] / "support" / "memory_worker.py"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def figures():
    """Of a process of its own: what the tests before had in memory must not count."""
    done = subprocess.run([sys.executable, WORKER], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_parameters_are_counted_per_component(figures):
    assert figures["parameter_bytes"] == {"text_encoder": 400, "transformer": 400, "vae": 800}
    assert figures["parameter_count"] == {"text_encoder": 100, "transformer": 100, "vae": 200}


def test_the_peak_falls_into_the_stage_that_kept_most(figures):
    assert figures["peak_allocated_bytes"] is None and "no allocator" in figures["reason"]
    if NO_RESET in figures["reason"]:
        assert figures["stage_peak_bytes"] == {} and figures["peak_stage"] is None
        pytest.skip(NO_RESET)
    peaks = figures["stage_peak_bytes"]
    kept = figures["kept_bytes"]
    assert peaks["denoise"] - peaks["text_encode"] == pytest.approx(kept, rel=0.1)
    assert figures["peak_stage"] in ("denoise", "vae_decode")  # the VAE begins with the denoiser's memory


def test_without_a_mark_to_reset_no_stage_gets_a_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_RESET_MARK", tmp_path / "not" / "there")
    watch = MemoryWatch(CPU, {})
    watch.begin_window()
    watch.begin_stage("denoise")
    watch.end_window()
    told = watch.report(0)
    assert told.stage_peak_bytes == {} and told.peak_stage is None
    assert NO_RESET in told.reason and told.host_rss_peak_bytes > 0
