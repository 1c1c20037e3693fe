"""Executed work against planned work, each bound on both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from result_samples import ENVIRONMENT, gpu_measurement, make_plan, prompt_set

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.measure.samples import DenoiserWork
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.efficiency import efficiency_section
from mlenergy.diffusion.results.executed import (
    PlannedWork,
    calls_that_ran,
    executed_section,
    planned_work,
    work_that_differs,
)
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete

CALLS = PlannedWork(200, scheduler="Euler")


def windows(*ranks_of_each):
    """Iterations in which the ranks saw so many calls."""
    return [
        replace(one, denoiser=tuple(None if n is None else DenoiserWork(n, n, 10 * n) for n in calls))
        for one, calls in zip(gpu_measurement().iterations, ranks_of_each, strict=False)
    ]


@pytest.mark.parametrize(
    ("seen", "differs"),
    [
        (windows((200, 200), (200, 200)), False),
        (windows((200, 200), (198, 202)), False),  # within 1 %
        (windows((200, 200), (200, 197)), True),
        (windows((203, 200), (200, 200)), True),
        (windows((200, None)), False),  # a rank without a denoiser
    ],
)
def test_calls_on_any_rank_and_in_any_window_are_those_of_the_plan(seen, differs):
    assert bool(work_that_differs(CALLS, seen)) == differs
    assert not work_that_differs(PlannedWork(), seen)  # nothing is known, nobody is accused


def test_the_line_says_where_and_what():
    (line,) = work_that_differs(CALLS, windows((200, 200), (200, 100), (1, 1)))
    assert line.startswith("the denoiser ran 100 times in window 1 on rank 1, and the plan's steps take 200")


@pytest.mark.parametrize(("elements", "differs"), [(1990, False), (1979, True), (2021, True)])
def test_latents_of_another_size_are_told(elements, differs):
    seen = [replace(one, denoiser=(DenoiserWork(20, 20, elements),)) for one in gpu_measurement().iterations]
    assert bool(work_that_differs(PlannedWork(20, 100), seen)) == differs


def test_latents_are_planned_where_one_process_does_it_all():
    spec = BY_ID["stabilityai/stable-diffusion-3-medium-diffusers"]
    plan = make_plan(spec=spec, weights_from=spec.model_id, guidance_scale=7.0, parallel=Parallelism())
    assert planned_work(plan, 28, "Euler") == PlannedWork(28, 4 * 2 * 16 * 128 * 128, "Euler")
    assert planned_work(replace(plan, guidance_scale=1.0), 28, "Euler").elements == 4 * 16 * 128 * 128
    assert planned_work(replace(plan, parallel=Parallelism(ulysses=2)), 28, "Euler").elements is None
    assert planned_work(replace(plan, use_resolution_binning=True), 28, "Euler").elements is None
    assert planned_work(replace(plan, weights_from="./nowhere"), 28, "Euler").elements is None


def test_the_section_holds_calls_and_what_explains_them():
    seen = windows((29, 28), (30, 29))
    section = executed_section(make_plan(), PlannedWork(29, scheduler="PNDMScheduler"), seen)
    assert section == {
        "steps_planned": 28,
        "denoiser_calls_planned": 29,
        "denoiser_calls_least": 28,
        "denoiser_calls_most": 30,
        "explanation": "PNDMScheduler makes 29 calls in 28 steps",
        "reason": None,
    }
    stages = make_plan(parallel=Parallelism(pipefusion=2))
    assert "PipeFusion" in executed_section(stages, PlannedWork(55), seen)["explanation"]
    assert executed_section(make_plan(), PlannedWork(28), seen)["explanation"] is None
    unseen = executed_section(make_plan(), PlannedWork(28), windows((28, None)))
    assert unseen["denoiser_calls_least"] is None and unseen["reason"]


def test_flops_are_those_of_the_calls_that_ran():
    plan, seen = make_plan(), windows((29, 29), (29, 29), (29, 29), (29, 29))
    asked = efficiency_section(plan, gpu_measurement().iterations)
    ran = efficiency_section(plan, seen, planned=PlannedWork(29))
    step = asked["stage_tflops"]["denoise_step"]
    assert ran["tflops_per_iteration"] == pytest.approx(asked["tflops_per_iteration"] + step)
    assert calls_that_ran(PlannedWork(28), windows((28,), (30,))) == 29
    assert calls_that_ran(PlannedWork(28), windows((28,), (None,))) is None
    stages = replace(plan, parallel=Parallelism(pipefusion=2))  # its calls are of patches
    assert efficiency_section(stages, seen, planned=PlannedWork(29))["tflops_per_iteration"] == pytest.approx(
        asked["tflops_per_iteration"]
    )


def test_a_result_of_other_work_is_marked_and_not_complete(tmp_path):
    plan = make_plan()
    measured = replace(gpu_measurement(), iterations=tuple(windows(*[(14, 14)] * 4)))
    record = RunRecord(plan, measured, prompt_set(plan), ENVIRONMENT, planned=PlannedWork(28))
    result = build_result(record, [None] * 16)
    assert len(result["executed_failed"]) == 1
    paths = RunPaths(tmp_path, "")
    write_json(paths.results, result)
    assert not is_complete(paths)
    write_json(paths.results, {**result, "executed_failed": []})
    assert is_complete(paths)
    assert result["iterations"][0]["denoiser"][1] == {
        "calls": 14,
        "rows": 14,
        "elements": 140,
        "text_tokens": None,
    }
