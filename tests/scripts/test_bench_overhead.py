"""The cost of sampling: the right windows are beside the sampling process; the table says what it added."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import driver_double
import forked
import psutil
import pytest


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    return importlib.import_module("bench_overhead")


def test_what_sampling_adds_is_of_windows_beside_the_sampling_process(bench, driver, monkeypatch):
    for name, value in driver_double.environment(driver, gpus=8, power="const:100").items():
        monkeypatch.setenv(name, value)
    before = set(psutil.Process().children())
    seen = []

    def window():
        (sampler,) = set(psutil.Process().children()) - before
        stopped = sampler.status() == psutil.STATUS_STOPPED
        seen.append(stopped)
        return bench.Cost(2.0 if stopped else 2.006, 1.0 if stopped else 1.001)

    cell = bench.sampling_cell(window, list(range(8)), 0.1, 12)
    assert seen.count(True) == seen.count(False) == 12
    assert all(len(set(seen[at : at + 2])) == 2 for at in range(0, 24, 2)), "one of each in every pair"
    assert cell["added_by_clock"]["median"] == pytest.approx(0.003)
    assert cell["added_processor_time"]["geometric_mean"] == pytest.approx(0.001)
    assert (cell["gpus"], cell["pairs"], cell["iteration_s"]) == (8, 12, 2.0)
    assert (cell["requested_period_s"], cell["period_s"]) == (0.1, 0.1) and cell["sample_read_s"] > 0
    assert set(psutil.Process().children()) == before

    report = {"cells": [cell], "cpu": "Example", "cpu_cores": 2, "load_average": 0.5}
    machine, _, _, _, row = bench.sampling_table(report).splitlines()
    assert machine == "Example, 2 cores, load average 0.5"
    assert row.startswith("| 8 | 100 ms, 100 ms |")
    assert "| +0.30% (+0.30% to +0.30%) | +0.10% (+0.10% to +0.10%) |" in row


def test_noise_of_two_equal_sides_is_no_overhead(bench):
    found = bench.ratio([0.8, 1.25, 0.9, 1 / 0.9, 1.0])
    assert found["geometric_mean"] == pytest.approx(1, abs=1e-12), "the arithmetic mean is 1.012"
    low, high = found["geometric_mean_ci95"]
    assert low == pytest.approx(1 / high) and low < 0.9
    assert found["median"] == 1.0
    assert bench.ratio([1.1])["geometric_mean_ci95"] is None


@pytest.mark.full
def test_the_whole_instrument_against_none(bench, tmp_path):
    words = ["--pairs", "3", "--seconds", "0.05", "--json", str(tmp_path / "report.json")]
    forked.run([sys.executable, bench.__file__, *words], check=True, capture_output=True)
    report = json.loads((tmp_path / "report.json").read_text())
    assert 0 < report["hooks_s_per_window"] < report["iteration_s"] / 2
    assert report["steps_per_window"] >= 1 and report["pairs"] == 3
    low, high = report["wall_ratio"]["geometric_mean_ci95"]
    assert 0 < low < report["wall_ratio"]["geometric_mean"] < high


def test_without_a_gpu_it_says_how_to_use_the_double(bench, monkeypatch):
    monkeypatch.setattr("sys.argv", ["bench_overhead.py", "--sampling", "--pairs", "1"])
    if bench_can_read():
        pytest.skip("this machine has GPUs")
    with pytest.raises(SystemExit, match=r"no GPU to sample: .*; name a number of doubles by --double"):
        bench.main()


def bench_can_read():
    from mlenergy.diffusion.environment.gpus import list_gpus

    return bool(list_gpus().gpus)
