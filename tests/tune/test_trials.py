"""Figures of a start, read from a results.json as the program writes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import result_samples as samples
from result_folders import result, save

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.measure.samples import Measurement, NodeEnergy, WindowEnergy
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.save import save_result
from mlenergy.diffusion.tune.trials import Measured, read_start


def written(folder: Path, plan: Plan, measurement: Measurement) -> Measured:
    count = sum(one.images for one in measurement.iterations)
    prompts = samples.prompt_set(plan)
    result = build_result(RunRecord(plan, measurement, prompts, samples.ENVIRONMENT), [None] * count)
    save_result(RunPaths(folder, "x"), result)
    return read_start(folder, 20.0)


def with_readings(measurement: Measurement, reading: WindowEnergy) -> Measurement:
    return replace(
        measurement, iterations=tuple(replace(one, energy=reading) for one in measurement.iterations)
    )


def test_on_gpus(tmp_path: Path) -> None:
    start = written(tmp_path, samples.make_plan(), samples.gpu_measurement())
    assert (start.iterations, start.wall_s, start.measured_s) == (4, 20.0, pytest.approx(33.2))
    assert start.seconds.mean == pytest.approx(33.2 / 16)
    assert start.joules is not None
    assert start.joules.mean == pytest.approx((5150 + 4000) / 4)
    assert (start.energy_of, start.energy_reason) == ("gpu", None)
    assert start.peak_memory_bytes == 34_500_000_000
    assert start.warnings == ("the last third of the iterations is 3.1 % slower than the first",)


def test_on_a_cpu_without_and_with_readable_packages(tmp_path: Path) -> None:
    start = written(tmp_path, samples.cpu_plan(), samples.cpu_measurement())
    assert (start.joules, start.energy_of) == (None, None)
    assert start.energy_reason == "no GPU takes part: the run is on the CPU"
    assert start.peak_memory_reason == "the CPU's allocator keeps no peak"
    nodes = (NodeEnergy("node-a", None, cpu_package_j=60.0, dram_j=5.0),)
    reading = replace(samples.NO_GPU, nodes=nodes)
    start = written(tmp_path, samples.cpu_plan(), with_readings(samples.cpu_measurement(), reading))
    assert start.joules is not None
    assert (start.joules.mean, start.joules.iterations, start.energy_of) == (30.0, 2, "cpu_packages")


def test_lost_gpus_are_not_replaced_by_the_processors(tmp_path: Path) -> None:
    lost = WindowEnergy("none", "a GPU was lost", nodes=(NodeEnergy("node-a", None, cpu_package_j=60.0),))
    start = written(tmp_path, samples.make_plan(), with_readings(samples.gpu_measurement(), lost))
    assert (start.joules, start.energy_of, start.energy_reason) == (None, None, "a GPU was lost")


def test_a_counter_that_stood_still_gives_no_joules(tmp_path: Path) -> None:
    still = samples.gpu_reading(0.0, 0.0)
    start = written(tmp_path, samples.make_plan(), with_readings(samples.gpu_measurement(), still))
    assert start.joules is None
    assert start.energy_reason == "the energy counter did not move: its period is longer than the windows"


def test_a_start_of_videos_counts_videos(tmp_path: Path) -> None:
    place = save(tmp_path, result((8.0, 12.0), (6000.0, 4000.0), video=True))
    found = read_start(place, None)
    assert found.joules is not None
    assert (found.seconds.mean, found.joules.mean) == pytest.approx((2.5, 1250))
    on_cpu = result((2.0, 4.0), on_cpu=True, video=True)
    for one in on_cpu["iterations"]:
        one["cpu_package_j"] = 100.0
    found = read_start(save(tmp_path / "cpu", on_cpu), None)
    assert found.joules is not None
    assert (found.joules.mean, found.energy_of) == (50.0, "cpu_packages"), "two videos a window"
