"""Videos that a model or its engine cannot make are refused from the plan, with what would fit."""

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
from mlenergy.diffusion.config.workloads import TextToVideo
from mlenergy.diffusion.engines.xdit.schedulers import check_scheduler
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.hub import ModelFolder
from mlenergy.diffusion.models.resolve import resolve_model

COG_2B, COG_15 = "zai-org/CogVideoX-2b", "zai-org/CogVideoX1.5-5B"
HUNYUAN = "hunyuanvideo-community/HunyuanVideo"


def plan_of(model: str, degrees: Parallelism, **changes: Any) -> Plan:
    args = BenchmarkArgs(TextToVideo(model_id=model, dataset="bundled"), engine="diffusers", device="cpu")
    plan = make_plan(args, resolve_model(model), 1, "cpu", "cpu")
    return replace(plan, **{"engine": "xdit", "parallel": degrees, **changes})


@pytest.mark.parametrize(
    ("model", "degrees", "changes"),
    [
        (COG_2B, Parallelism(ulysses=2), {}),
        (COG_2B, Parallelism(cfg=2, ring=2), {}),
        (COG_2B, Parallelism(data=2), {"batch_size": 2, "guidance_scale": 1.0}),
        (COG_15, Parallelism(ulysses=8), {}),  # 768 pixels are 48 rows of tokens
        (HUNYUAN, Parallelism(ulysses=8), {}),  # 45 rows, and tokens that eight ranks share
        (HUNYUAN, Parallelism(ulysses=3), {}),  # a text of 256 tokens, which three do not share
        ("tiny/cogvideox", Parallelism(), {"num_frames": 1}),
        ("tiny/cogvideox", Parallelism(), {"max_sequence_length": 63}),
    ],
)
def test_what_runs_is_not_refused(model: str, degrees: Parallelism, changes: dict[str, Any]) -> None:
    assert reasons(plan_of(model, degrees, **changes)) == []


@pytest.mark.parametrize(
    ("model", "degrees", "changes", "line"),
    [
        # Of 13 frames the VAE would make 16, and says nothing.
        (
            "tiny/cogvideox",
            Parallelism(),
            {"num_frames": 13},
            "num_frames 13: .*multiples of 8 .*; use 9 or 17",
        ),
        (
            "tiny/hunyuanvideo",
            Parallelism(),
            {"num_frames": 8},
            "num_frames 8: .*multiples of 4 .*; use 5 or 9",
        ),
        (COG_2B, Parallelism(), {"max_sequence_length": 64}, "laid out for 226 text tokens; leave"),
        (
            COG_2B,
            Parallelism(ulysses=5, ring=4),
            {},
            "480 makes 30 rows of tokens, .*; use a height of 320 or",
        ),
        (
            COG_2B,
            Parallelism(ring=4),
            {},
            "480 makes 30 rows of tokens, .* ring 4 = 4 .*; use a height of 448 or 512",
        ),
        (
            "tiny/cogvideox",
            Parallelism(ulysses=2),
            {"guidance_scale": 1.0},
            "no step without the guidance batch",
        ),
        ("tiny/cogvideox", Parallelism(pipefusion=2), {}, "xfuser has none for it"),
        (
            "tiny/cogvideox",
            Parallelism(ulysses=2),
            {"engine": "diffusers"},
            "see docs/capabilities.md.; use --engine xdit",
        ),
        (HUNYUAN, Parallelism(cfg=2), {}, "guidance scale is an input of the denoiser"),
        (
            HUNYUAN,
            Parallelism(ulysses=2),
            {"batch_size": 2},
            "attend to the padding .*; use --workload.batch_size 1",
        ),
        (
            "tiny/hunyuanvideo",
            Parallelism(ring=4),
            {"height_px": 80, "width_px": 80},
            "3 latent frames of 5 x 5 tokens are 75 tokens, which .* = 4 processes cannot share evenly; use",
        ),
    ],
)
def test_what_does_not_run_is_refused_with_its_reason(
    model: str, degrees: Parallelism, changes: dict[str, Any], line: str
) -> None:
    plan = plan_of(model, degrees, **changes)
    found = reasons(plan)
    assert found and re.search(line, found[0]), found


def test_a_pair_of_frames_that_is_not_full_counts_as_one(tmp_path: Path) -> None:
    plan = plan_of(COG_15, Parallelism())
    assert plan.latent_frames == 21
    assert plan.tokens == 11 * 48 * 85


@pytest.mark.parametrize(
    ("name", "fits"), [("CogVideoXDDIMScheduler", True), ("CogVideoXDPMScheduler", False)]
)
def test_a_scheduler_that_draws_noise_is_refused_where_rows_are_shared(
    name: str, fits: bool, tmp_path: Path
) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": name}))
    folder = ModelFolder(tmp_path, {"scheduler": ["diffusers", name]})
    check_scheduler(plan_of("tiny/cogvideox", Parallelism(cfg=2)), folder)
    if fits:
        check_scheduler(plan_of("tiny/cogvideox", Parallelism(ulysses=2)), folder)
    else:
        with pytest.raises(UserError, match=f"{name}, which xfuser cannot step on parts"):
            check_scheduler(plan_of("tiny/cogvideox", Parallelism(ulysses=2)), folder)


def test_a_folder_is_like_the_listed_model_of_its_shape(tmp_path: Path) -> None:
    configs = {
        "transformer": {"num_attention_heads": 48, "num_layers": 2, "patch_size": 2, "patch_size_t": 2},
        "vae": {"block_out_channels": [8, 8, 8, 8], "temporal_compression_ratio": 4},
    }
    index = {"_class_name": "CogVideoXPipeline", **{name: ["diffusers", "X"] for name in configs}}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    for name, config in configs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    spec = resolve_model(str(tmp_path))
    assert (spec.patch_frames, spec.frame_factor, spec.default_num_frames, spec.default_fps) == (2, 4, 81, 16)
    assert (spec.default_height_px, spec.default_width_px, spec.heads) == (768, 1360, 48)
