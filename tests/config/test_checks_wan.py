"""What cannot be shared or made of a video is refused from the plan, with what would fit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from own_models import write_configurations

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.checks import reasons
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToVideo
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.models.spec import EngineName

WAN_1B, WAN_14B = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers"
A14B, TI2V = "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "Wan-AI/Wan2.2-TI2V-5B-Diffusers"


def plan_of(model: str, engine: EngineName, degrees: Parallelism, **changes: Any) -> Plan:
    work = TextToVideo(model_id=model, dataset="bundled")
    plan = make_plan(
        BenchmarkArgs(work, engine="diffusers", device="cpu"), resolve_model(model), 1, "cpu", "cpu"
    )
    return replace(plan, engine=engine, parallel=degrees, **changes)


@pytest.mark.parametrize("engine", ["xdit", "diffusers"])
@pytest.mark.parametrize(
    ("model", "degrees"),
    [
        (WAN_1B, Parallelism(ulysses=4, ring=2)),  # 32,760 tokens in 30 rows, which 8 does not divide
        (WAN_1B, Parallelism(cfg=2, ulysses=4)),
        (WAN_14B, Parallelism(ulysses=8)),
        (A14B, Parallelism(cfg=2, ulysses=4)),
        (TI2V, Parallelism(ring=8)),
    ],
)
def test_published_sizes_are_shared_by_eight(model: str, engine: EngineName, degrees: Parallelism) -> None:
    assert reasons(plan_of(model, engine, degrees)) == []


@pytest.mark.parametrize("engine", ["xdit", "diffusers"])
@pytest.mark.parametrize(
    ("model", "degrees", "changes", "line"),
    [
        (WAN_1B, Parallelism(ulysses=8), {}, "12 attention heads .*use one of 1, 2, 3, 4, 6, 12, or --ring"),
        (
            *("tiny/wan", Parallelism(ulysses=2), {"height_px": 48, "width_px": 80}),
            "3 latent frames of 3 x 5 tokens are 45 tokens, which ulysses 2 x ring 1 = 2 .* evenly; use "
            "--workload.height 32, or --workload.width 64, or --workload.num_frames 5, or fewer processes",
        ),
        (
            *("tiny/wan", Parallelism(ring=2), {"height_px": 48, "width_px": 80}),
            "45 tokens, which ulysses 1 x ring 2 = 2 processes cannot share",
        ),
        ("tiny/wan", Parallelism(cfg=2), {"guidance_scale": 1.0}, "guidance scale 1 runs none"),
        ("tiny/wan", Parallelism(), {"guidance_scale_2": 3.0}, "guidance_scale_2 is for models with two"),
        ("tiny/wan", Parallelism(), {"boundary_ratio": 0.9}, "boundary_ratio is for models with two"),
        ("tiny/wan", Parallelism(pipefusion=2), {}, "does not offer it for wan models .*no pipeline"),
    ],
)
def test_what_does_not_run_is_refused_with_what_fits(
    model: str, engine: EngineName, degrees: Parallelism, changes: dict[str, Any], line: str
) -> None:
    found = reasons(plan_of(model, engine, degrees, **changes))
    assert len(found) == 1
    assert re.search(line, found[0]), found[0]


def test_every_fit_that_is_named_is_one() -> None:
    for degree in (2, 4, 6, 7, 8):
        plan = plan_of("tiny/wan", "xdit", Parallelism(ring=degree), height_px=48, width_px=80)
        (line,) = reasons(plan)
        named = re.findall(r"--workload\.(height|width|num_frames) (\d+)", line)
        assert named
        for option, value in named:
            name = option if option == "num_frames" else f"{option}_px"
            assert reasons(replace(plan, **{name: int(value)})) == [], (degree, option, value)


def test_a_decoder_is_shared_by_rows() -> None:
    degrees = Parallelism(ulysses=4, parallel_vae=True)
    assert reasons(plan_of("tiny/wan", "xdit", degrees)) == []
    (line,) = reasons(plan_of("tiny/wan", "xdit", degrees, height_px=32))
    assert "a band of rows, of which 32 pixels make 2 for 4 processes" in line


@pytest.mark.parametrize("model", [WAN_1B, WAN_14B, A14B, TI2V, "Lightricks/LTX-Video"])
def test_a_folder_is_read_as_the_model_that_it_holds(model: str, tmp_path: Path) -> None:
    listed, found = resolve_model(model), resolve_model(str(write_configurations(tmp_path / "a", model, {})))
    for name in (
        *("heads", "layers", "latent_factor", "patch_size", "frame_factor", "patch_frames"),
        *("default_num_frames", "default_fps", "default_guidance_scale", "default_guidance_scale_2"),
        *("default_boundary_ratio", "default_height_px", "default_width_px", "default_max_sequence_length"),
    ):
        assert getattr(found, name) == getattr(listed, name), name
