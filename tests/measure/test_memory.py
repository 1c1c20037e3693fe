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


class Allocator:
    """torch's CUDA allocator, as far as peaks go: what is in use, and the most since the last reset."""

    def __init__(self, monkeypatch):
        self.used = self.peak = 0
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)
        monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", self.stats)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (60, 100))

    def reset(self, _device):
        self.peak = self.used

    def stats(self, _device):
        def figures(peak):
            return {"all": {"current": 1, "peak": peak, "allocated": 3}, "small_pool": {"peak": 4}}

        return {"allocated_bytes": figures(self.peak), "reserved_bytes": figures(2 * self.peak)}

    def use(self, count):
        self.used = count
        self.peak = max(self.peak, count)


def test_each_stage_has_its_own_peak_and_nothing_outside_of_windows_counts(monkeypatch):
    allocator = Allocator(monkeypatch)
    watch = MemoryWatch(torch.device("cuda"), {"vae": torch.nn.Linear(3, 2, bias=False)})
    allocator.use(900), allocator.use(10)  # loading and warm-up
    watch.begin_stage("denoise")  # of a warm-up call
    for denoise in (50, 40):
        watch.begin_window()
        watch.begin_stage("text_encode")
        allocator.use(20), allocator.use(10)
        watch.begin_stage("other")
        watch.begin_stage("denoise")
        allocator.use(denoise), allocator.use(15)
        watch.begin_stage("denoise")  # its second step
        watch.begin_stage("vae_decode")
        allocator.use(30), allocator.use(10)
        watch.end_window()
        allocator.use(700), allocator.use(10)  # between the windows
        watch.begin_stage("vae_decode"), watch.end_window()  # of a call that is no window
    memory = watch.report(3)
    assert memory.stage_peak_bytes == {"other": 10, "text_encode": 20, "denoise": 50, "vae_decode": 30}
    assert (memory.peak_allocated_bytes, memory.peak_stage, memory.rank) == (50, "denoise", 3)
    assert (memory.peak_reserved_bytes, memory.driver_used_bytes) == (100, 40)
    assert (memory.parameter_bytes, memory.parameter_count) == ({"vae": 24}, {"vae": 6})
