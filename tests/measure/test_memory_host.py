"""Peaks of the host's memory on a kernel of the test's, and bytes of weights that are stored otherwise."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from mlenergy.diffusion.measure import memory
from mlenergy.diffusion.measure.memory import (
    NO_ALLOCATOR,
    NO_PEAK_ON_MPS,
    NO_RESET,
    MemoryWatch,
    parameter_bytes,
)

CPU = torch.device("cpu")


class Kernel:
    """The resident size now and the most since the last reset, in the files of /proc."""

    def __init__(self, monkeypatch, tmp_path) -> None:
        self.used = self.peak = 0
        self.files = {
            "/proc/self/status": lambda: (
                f"Name:\tx\nVmPeak:\t 999999 kB\nVmHWM:\t {self.peak} kB\nVmRSS:\t 1 kB\n"
            )
        }
        monkeypatch.setattr(memory, "Path", self.path)
        monkeypatch.setattr(memory, "_reset_host_peak", self.reset)

    def path(self, name):
        def read():
            if name not in self.files:
                raise FileNotFoundError(name)
            return self.files[name]()

        return SimpleNamespace(read_text=read)

    def reset(self) -> bool:
        self.peak = self.used
        return True

    def use(self, kib):
        self.used = kib
        self.peak = max(self.peak, kib)


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    return Kernel(monkeypatch, tmp_path)


def test_apples_gpu_has_a_reason_of_its_own(kernel):
    watch = MemoryWatch(torch.device("mps"), {})
    watch.begin_window()
    kernel.use(500)
    watch.end_window()
    told = watch.report(0)
    assert (told.peak_allocated_bytes, told.reason) == (None, NO_PEAK_ON_MPS)
    assert told.host_rss_peak_bytes == 500 * 1024


def test_the_hosts_peaks_are_those_of_the_stages_in_bytes(kernel):
    watch = MemoryWatch(CPU, {})
    kernel.use(900), kernel.use(10)
    for denoise in (500, 40):
        watch.begin_window()
        watch.begin_stage("denoise")
        kernel.use(denoise), kernel.use(20)
        watch.end_window()
    told = watch.report(2)
    assert told.stage_peak_bytes == {"other": 20 * 1024, "denoise": 500 * 1024}
    assert told.peak_stage == "denoise" and told.reason == NO_ALLOCATOR
    assert told.host_rss_peak_bytes == 500 * 1024
    assert (told.peak_allocated_bytes, told.peak_reserved_bytes, told.driver_used_bytes) == (None, None, None)
    kernel.use(700)  # after the windows: the process's own peak
    assert watch.report(2).host_rss_peak_bytes == 700 * 1024


def test_a_kernel_without_a_mark_tells_the_present_size(kernel):
    kernel.files["/proc/self/status"] = lambda: "Name:\tx\n"
    kernel.files["/proc/self/statm"] = lambda: "9000 321 5 0 0 0 0\n"
    assert memory._host_peak_bytes() == 321 * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("freebsd", 1024)])
def test_without_proc_the_systems_own_unit_counts(kernel, monkeypatch, platform, unit):
    del kernel.files["/proc/self/status"]
    monkeypatch.setattr(sys, "platform", platform)
    usage = SimpleNamespace(getrusage=lambda _who: SimpleNamespace(ru_maxrss=7000), RUSAGE_SELF=0)
    monkeypatch.setattr(memory, "resource", usage)
    assert memory._host_peak_bytes() == 7000 * unit


def test_the_kernels_mark_is_reset_by_its_own_word(monkeypatch, tmp_path):
    mark = tmp_path / "clear_refs"
    monkeypatch.setattr(memory, "_RESET_MARK", mark)
    assert memory._reset_host_peak() is True
    assert mark.read_text() == "5"  # proc(5): reset the peak resident set size
    monkeypatch.setattr(memory, "_RESET_MARK", tmp_path / "not" / "there")
    assert memory._reset_host_peak() is False


def test_one_reset_that_fails_is_enough_to_know_no_peak(kernel, monkeypatch):
    answers = iter([True, False, True])
    monkeypatch.setattr(memory, "_reset_host_peak", lambda: next(answers))
    watch = MemoryWatch(CPU, {})
    kernel.use(50)
    watch.begin_window()
    watch.begin_stage("denoise")
    watch.begin_stage("vae_decode")
    watch.end_window()
    told = watch.report(0)
    assert (told.stage_peak_bytes, told.peak_stage, told.reason) == ({}, None, f"{NO_ALLOCATOR}; {NO_RESET}")


def test_a_gpu_that_was_never_measured_has_no_peak(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (60, 100))
    told = MemoryWatch(torch.device("cuda"), {}).report(0)
    assert (told.peak_allocated_bytes, told.peak_stage, told.reason) == (None, None, None)
    assert told.peak_reserved_bytes == 0


def test_a_quantised_weight_takes_the_bytes_of_all_that_it_stores():
    inner = {"data": torch.zeros(32, dtype=torch.int8), "scale": torch.zeros(4), "zero": torch.zeros(4)}
    weight = SimpleNamespace(__tensor_flatten__=lambda: (list(inner), None), **inner)
    nested = {"packed": weight, "bias": torch.zeros(2)}
    outer = SimpleNamespace(__tensor_flatten__=lambda: (list(nested), None), **nested)
    assert (
        parameter_bytes(SimpleNamespace(parameters=lambda: [outer, torch.zeros(3)])) == 32 + 16 + 16 + 8 + 12
    )


def test_a_shard_counts_by_this_ranks_part():
    part = torch.zeros(5)
    shard = SimpleNamespace(to_local=lambda: part)
    module = SimpleNamespace(parameters=lambda: [shard])
    assert parameter_bytes(module) == 20
    told = MemoryWatch(CPU, {"transformer": module}).report(0)
    assert (told.parameter_bytes, told.parameter_count) == ({"transformer": 20}, {"transformer": 5})
