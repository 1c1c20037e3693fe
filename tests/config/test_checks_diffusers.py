"""What the diffusers engine refuses from the plan alone, with the arithmetic."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.checks import reasons
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.models.families import FAMILIES
from mlenergy.diffusion.models.resolve import resolve_model


def plan_for(model="tiny/sd3", degrees=None, **changes):
    work = TextToImage(model_id=model, dataset="bundled", height=64, width=64, batch_size=2)
    args = BenchmarkArgs(work, engine="diffusers", device="cpu")
    plan = make_plan(args, resolve_model(model), 1, "cpu", "cpu")
    return replace(plan, parallel=Parallelism(**(degrees or {})), **changes)


def test_every_family_has_its_modes_and_none_needs_torch():
    for family in FAMILIES.values():
        assert family.modes.get("diffusers") or family.modes["autoregressive"]
    code = "import sys, mlenergy.diffusion.config.checks; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "plan",
    [
        plan_for(degrees={"ulysses": 4}),
        plan_for(degrees={"ring": 2}),  # 77 + 64 text tokens, odd: shared out unevenly
        plan_for(degrees={"ring": 2, "ulysses": 2, "cfg": 2, "data": 2}, max_sequence_length=63),
        plan_for("tiny/sdxl", {"cfg": 2, "data": 2}),
        plan_for("tiny/flux", {"tensor": 4, "data": 2}),
        plan_for("tiny/flux", {"ulysses": 2, "ring": 2, "data": 2}),
    ],
)
def test_what_fits_passes(plan):
    assert reasons(plan) == []


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (
            plan_for(degrees={"pipefusion": 2}),
            "pipefusion_parallel_degree: the diffusers engine does not offer it for sd3 .* use --engine xdit",
        ),
        (plan_for(degrees={"ulysses": 2, "parallel_vae": True}), "use_parallel_vae: .* not offer it for sd3"),
        (plan_for("tiny/flux", {"cfg": 2}), "use_cfg_parallel: .* not offer it for flux .*; leave it out"),
        (plan_for("tiny/sdxl", {"ulysses": 2}), "ulysses_degree: .* not offer it for sdxl"),
        (plan_for(degrees={"ulysses": 3}), "3 does not divide the 4 attention heads of tiny/sd3; use one of"),
        (plan_for(degrees={"ring": 3}), "64 makes 4 rows of tokens, which ulysses 1 x ring 3 = 3 processes"),
        (
            plan_for(degrees={"ulysses": 2, "ring": 2}),
            "141 text tokens cannot be shared evenly .*max_sequence_length 63",
        ),
        (
            plan_for("tiny/flux", {"tensor": 3}),
            "tensor 3 does not divide 4 attention heads; use one of 1, 2, 4",
        ),
        (
            plan_for("tiny/flux", {"tensor": 2, "ulysses": 2}),
            "does not combine tensor 2 with ulysses 2 x ring 1",
        ),
        (plan_for("tiny/sd3", {"tensor": 2}), "tensor_parallel_degree: .* not offer it for sd3"),
        (plan_for(degrees={"cfg": 3}), "two halves"),
        (plan_for(degrees={"cfg": 2}, guidance_scale=1.0), "guidance scale 1 runs none"),
        (plan_for(degrees={"cfg": 2}, guidance_scale=None), "guidance scale none runs none"),
        (plan_for(degrees={"data": 3}), "batch_size 2 cannot be shared evenly by 3 .* use 3"),
        (plan_for(degrees={"ring": 2}, device="cuda"), "ring attention needs float16 or bfloat16"),
    ],
)
def test_what_does_not_fit_says_why(plan, words):
    line = reasons(plan)[0]
    assert re.search(words, line), line
