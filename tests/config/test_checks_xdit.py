"""What xfuser cannot run is refused from the plan, with what would fit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.checks import reasons
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.engines.call import call_arguments
from mlenergy.diffusion.engines.xdit.schedulers import check_scheduler
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import ModelFolder
from mlenergy.diffusion.models.resolve import resolve_model


def plan_of(model: str, degrees: Parallelism, **changes: Any) -> Plan:
    work = TextToImage(model_id=model, dataset="bundled")
    args = BenchmarkArgs(work, engine="diffusers", device="cpu")
    plan = make_plan(args, resolve_model(model), 1, "cpu", "cpu")
    return replace(plan, engine="xdit", parallel=degrees, **changes)


@pytest.mark.parametrize(
    ("model", "degrees", "changes"),
    [
        ("tiny/flux", Parallelism(), {}),
        ("tiny/flux", Parallelism(ulysses=4, ring=2), {}),
        ("tiny/flux", Parallelism(tensor=2, data=2), {"batch_size": 2}),
        ("tiny/sd3", Parallelism(cfg=2, ulysses=2), {}),
        ("tiny/sd3", Parallelism(ulysses=2), {"guidance_scale": 0.0}),
        ("tiny/hunyuandit", Parallelism(pipefusion=2), {}),
        ("tiny/sdxl", Parallelism(cfg=2), {}),
        ("black-forest-labs/FLUX.1-dev", Parallelism(pipefusion=8), {}),
    ],
)
def test_what_runs_is_not_refused(model: str, degrees: Parallelism, changes: dict[str, Any]) -> None:
    assert reasons(plan_of(model, degrees, **changes)) == []


@pytest.mark.parametrize(
    ("model", "degrees", "changes", "line"),
    [
        ("tiny/sdxl", Parallelism(cfg=2, data=2), {}, "data_parallel_degree: the xdit engine does not offer"),
        ("tiny/flux", Parallelism(cfg=2), {}, "use_cfg_parallel: the xdit engine does not .*; leave it out"),
        ("tiny/sd3", Parallelism(cfg=2), {"guidance_scale": 1.0}, "guidance scale 1 runs none; use a --work"),
        ("tiny/sd3", Parallelism(cfg=3), {}, "two halves, so 3 processes cannot share them; use 2"),
        ("tiny/sd3", Parallelism(data=2), {"batch_size": 3}, "batch_size 3 cannot.* by 2 .*; use 4"),
        ("tiny/sd3", Parallelism(ulysses=3), {"height_px": 240}, "not divide the 4 .*use one of 1, 2, 4"),
        ("tiny/sd3", Parallelism(ring=3), {}, "256 makes 16 rows .* ring 3 = 3 .*use a height of 240 or 288"),
        ("tiny/flux", Parallelism(num_pipeline_patch=2), {}, "num_pipeline_patch is PipeFusion's"),
        (
            *("tiny/flux", Parallelism(pipefusion=2, num_pipeline_patch=5), {"height_px": 64}),
            "cannot cut 4 rows .*into 5 patches; use a --num_pipeline_patch of 1, 2, 4$",
        ),
        (
            *("tiny/flux", Parallelism(pipefusion=2, ulysses=2, num_pipeline_patch=3), {"height_px": 64}),
            "cannot cut 4 rows of tokens, shared by 2 processes, into 3 patches; use .* of 1, 2$",
        ),
        ("tiny/sd3", Parallelism(pipefusion=2, pipefusion_warmup_steps=0), {}, "at least one synchronous"),
        ("tiny/flux", Parallelism(tensor=2, ulysses=2), {}, "beside 2 processes of Ulysses.*wrong images"),
        ("tiny/hunyuandit", Parallelism(pipefusion=3), {}, "work in pairs; use 2 or 4"),
        ("tiny/hunyuandit", Parallelism(pipefusion=2), {"guidance_scale": 1.0}, "expects a guidance batch"),
        ("tiny/flux", Parallelism(parallel_vae=True), {}, "several processes for an image, and there is one"),
        (
            *("tiny/flux", Parallelism(data=2, ulysses=2, parallel_vae=True), {"batch_size": 2}),
            "all 2 data-parallel groups in each of them, 2 times the work",
        ),
        (
            *("tiny/pixart-alpha", Parallelism(ulysses=2), {"use_resolution_binning": True}),
            "check against 2 processes; name a trained size",
        ),
        ("tiny/flux", Parallelism(ring=2), {"device": "cuda"}, "float16 or bfloat16 on a GPU"),
    ],
)
def test_what_does_not_run_is_refused_with_what_fits(
    model: str, degrees: Parallelism, changes: dict[str, Any], line: str
) -> None:
    found = reasons(plan_of(model, degrees, **changes))
    assert len(found) == 1
    assert re.search(line, found[0]), found[0]


@pytest.mark.parametrize(("layers", "stages", "fits"), [(57, 8, True), (57, 38, False), (40, 7, True)])
def test_no_stage_is_left_without_layers(layers: int, stages: int, fits: bool) -> None:
    plan = plan_of("tiny/flux", Parallelism(pipefusion=stages, num_pipeline_patch=1))
    plan = replace(plan, spec=replace(plan.spec, layers=layers))
    assert (reasons(plan) == []) is fits


def test_reasons_agree_with_xfusers_own_cutting() -> None:
    """The patches that xfuser makes of so many rows, by its own arithmetic."""
    for rows in range(1, 33):
        for wanted in range(1, 9):
            height = (rows + wanted - 1) // wanted
            made = (rows + height - 1) // height
            plan = plan_of(
                *("tiny/flux", Parallelism(pipefusion=2, num_pipeline_patch=wanted)), height_px=16 * rows
            )
            assert (reasons(plan) == []) is (made == wanted), (rows, wanted)


def test_approximation_counts_the_stale_steps() -> None:
    degrees = Parallelism(pipefusion=2, pipefusion_warmup_steps=3)
    assert plan_of("tiny/flux", degrees, steps=3).approximation is None
    assert plan_of("tiny/flux", replace(degrees, num_pipeline_patch=1), steps=9).approximation is None
    assert plan_of("tiny/flux", Parallelism(ulysses=2)).approximation is None
    assert "2 patches: 6 of 9 steps" in str(plan_of("tiny/flux", degrees, steps=9).approximation)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"_class_name": "LCMScheduler"}, "has the scheduler LCMScheduler"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"},
            "sde-dpmsolver",
        ),
        ({"_class_name": "DDIMScheduler", "thresholding": True}, "thresholding=True"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, None),
        ({"_class_name": "DDPMScheduler", "thresholding": False}, None),
    ],
)
def test_schedulers_that_cannot_step_parts_are_refused(
    config: dict[str, Any], line: str | None, tmp_path: Path
) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    folder = ModelFolder(tmp_path, {"scheduler": ["diffusers", config.get("_class_name")]})
    check_scheduler(plan_of("tiny/sd3", Parallelism(cfg=2, data=2)), folder)
    if line is None:
        check_scheduler(plan_of("tiny/sd3", Parallelism(ulysses=2)), folder)
    else:
        with pytest.raises(UserError, match=line):
            check_scheduler(plan_of("tiny/sd3", Parallelism(pipefusion=2)), folder)


def test_call_arguments_say_what_the_plan_says() -> None:
    sd3 = plan_of("tiny/sd3", Parallelism(), batch_size=2, max_sequence_length=51, negative_prompt="blurred")
    assert dict(call_arguments(sd3)) == {
        "height": 256,
        "width": 256,
        "num_inference_steps": 4,
        "output_type": "pt",
        "guidance_scale": sd3.guidance_scale,
        "max_sequence_length": 51,
        "negative_prompt": ["blurred", "blurred"],
    }
    pixart = call_arguments(plan_of("tiny/pixart-alpha", Parallelism()))
    assert pixart["use_resolution_binning"] is False
    assert pixart["clean_caption"] is False
    assert "max_sequence_length" not in call_arguments(plan_of("tiny/hunyuandit", Parallelism()))
