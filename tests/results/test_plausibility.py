"""Numbers that cannot be, each bound on both sides."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from result_samples import cpu_measurement, cpu_plan, gpu_measurement, make_plan, prompt_set, rank_memory

from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.plausibility import DOUBTFUL, IMPLAUSIBLE, doubts

GPUS = [
    {"uuid": "GPU-a", "memory_bytes": 80_000_000_000, "power_limit_w": 650.0},
    {"uuid": "GPU-b", "memory_bytes": 143_000_000_000, "power_limit_w": 500.0},
]
ENVIRONMENT = {"nodes": [{"hostname": "node-a", "gpus": GPUS[:1]}, {"hostname": "node-b", "gpus": GPUS[1:]}]}
WORK = {"mfu": 0.4, "j_per_tflop": 1.0, "peak_tflops": 989.5, "peak_dtype": "bfloat16"}
WINDOWS_S = 8.0 + 8.2 + 8.4 + 8.6


def codes_of(measurement, plan=None, tflops=400.0, environment=ENVIRONMENT):
    plan = plan or make_plan()
    work = {**WORK, "tflops_per_gpu": tflops}
    record = RunRecord(plan, measurement, prompt_set(plan), environment, efficiency=work)
    result = build_result(record, [None] * record.completed)
    return {warning["code"] for warning in result["warnings"] if warning["code"] in IMPLAUSIBLE}


def with_power(gpu_a_w, **changes):
    """Four windows in which GPU-a draws so many watts in the mean, and GPU-b 300."""
    found = gpu_measurement()
    iterations = []
    for one in found.iterations:
        first, second = one.energy.gpus
        joules = [
            replace(first, energy_j=gpu_a_w * one.duration_s),
            replace(second, energy_j=300 * one.duration_s),
        ]
        iterations.append(replace(one, energy=replace(one.energy, gpus=tuple(joules))))
    return replace(found, iterations=tuple(iterations), **{"power_limit_w": {}, **changes})


def with_window(**changes):
    found = gpu_measurement()
    first, *others = found.iterations
    return replace(found, iterations=(replace(first, **changes), *others))


def with_memory(**changes):
    ranks = (rank_memory(0, 34_000_000_000), replace(rank_memory(1, 34_000_000_000), **changes))
    return replace(gpu_measurement(), memory=ranks)


def with_other(share):
    stages = gpu_measurement().iterations[0].stages
    return with_window(stages=replace(stages, other_s=share * 8.0))


@pytest.mark.parametrize(
    ("possible", "impossible", "code"),
    [
        (with_power(779), with_power(781), "above_power_limit"),  # 1.2 × 650 W
        (with_power(72), with_power(71), "below_idle_power"),  # 0.95 × 75 W
        (with_power(1, idle_power_w={}), with_power(0, idle_power_w={}), "below_idle_power"),
        (
            with_window(duration_s=1.01e-4, stages=None),
            with_window(duration_s=0.99e-4, stages=None),
            "no_time",
        ),
        (with_other(-0.019), with_other(-0.021), "stages_exceed_window"),
        *(
            (
                with_memory(**{name: 142_900_000_000}),
                with_memory(**{name: 143_100_000_000}),
                "above_device_memory",
            )
            for name in ("peak_allocated_bytes", "peak_reserved_bytes", "driver_used_bytes")
        ),
    ],
)
def test_a_number_that_cannot_be_has_a_warning_and_its_neighbour_has_none(possible, impossible, code):
    assert codes_of(possible) == set()
    assert codes_of(impossible) == {code}


def test_a_rank_is_held_against_its_own_gpu_where_that_is_known():
    used = {**ENVIRONMENT, "devices": [{"uuid": "GPU-a"}, {"uuid": "GPU-b"}]}
    assert codes_of(with_memory(driver_used_bytes=142_000_000_000), environment=used) == set()
    swapped = {**ENVIRONMENT, "devices": [{"uuid": "GPU-b"}, {"uuid": "GPU-a"}]}
    assert codes_of(with_memory(driver_used_bytes=81_000_000_000), environment=swapped) == {
        "above_device_memory"
    }


def test_no_gpu_is_faster_than_its_peak():
    assert codes_of(gpu_measurement(), tflops=989.4) == set()
    assert codes_of(gpu_measurement(), tflops=989.6) == {"above_peak_flops"}


def test_the_limit_of_this_run_counts_before_the_boards_own():
    limits = {"GPU-a": 400.0, "GPU-b": 400.0}
    assert codes_of(with_power(481, power_limit_w=limits)) == {"above_power_limit"}
    assert codes_of(with_power(479, power_limit_w=limits)) == set()


def test_what_is_not_known_is_not_accused():
    assert codes_of(with_power(5000), environment={}) == set()
    assert codes_of(with_memory(driver_used_bytes=10**13), environment={}) == set()
    assert codes_of(cpu_measurement(), cpu_plan(), tflops=None) == set()


def test_a_reader_finds_the_doubtful_ones_and_the_docs_explain_each():
    warnings = [{"code": code, "message": ""} for code in ("no_time", "power_cap", "images_not_finite")]
    assert [one["code"] for one in doubts({"warnings": warnings})] == ["no_time", "images_not_finite"]
    text = (Path(__file__).resolve().parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    section = text.split("### warnings")[1].split("\n### ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) >= IMPLAUSIBLE
    assert set(re.findall(r"`(\w+)`", section)) >= DOUBTFUL
