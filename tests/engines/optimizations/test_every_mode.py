"""No option does nothing in silence: in every engine, family and mode it acts on each rank or is refused."""

import json
import os
import sys
from dataclasses import astuple
from itertools import combinations
from pathlib import Path

import forked
import pytest
from optimization_table import ATTENTION, OTHERS, VIDEOS, SetUp, set_ups

from mlenergy.diffusion.config.optimizations import OPTIMIZATIONS, Optimizations
from mlenergy.diffusion.engines.optimizations.effects import has_checked_effect, optimizations_without_effect
from mlenergy.diffusion.errors import UserError

WORKER = Path(__file__).parents[2] / "support" / "optimization_table_worker.py"
QUICK = {
    SetUp("math", "tiny/flux", "xdit", "data"),
    SetUp("math", "tiny/sd3.5", "xdit", "cfg"),
    SetUp("math", "tiny/pixart-alpha", "xdit", "ulysses"),
    SetUp("math", "tiny/hunyuandit", "xdit", "pipefusion"),
    SetUp("math", "tiny/flux", "diffusers", "tensor"),
    SetUp("attention_slicing", "tiny/sdxl", "xdit", "cfg"),
    SetUp("vae_slicing", "tiny/sd3", "xdit", "data"),
    SetUp("fuse_qkv", "tiny/pixart-alpha", "diffusers", "ulysses"),
    SetUp("unet_channels_last", "tiny/sdxl", "xdit", "cfg"),
}
# Of videos those options that do something of their own there.
OF_VIDEOS = {
    name: options
    for name, options in OTHERS.items()
    if name.startswith(("cache", "quantization", "layerwise", "vae_slicing", "vae_tiling", "fuse", "fp8"))
}
OFFERED, REFUSALS = [], []
for one in (*set_ups(ATTENTION), *set_ups(OTHERS), *set_ups(OF_VIDEOS | {"math": ATTENTION["math"]}, VIDEOS)):
    try:
        one.plan()
        OFFERED.append(one)
    except UserError as error:
        REFUSALS.append((one, str(error)))


def few(offered):
    """Set-ups in which every two of optimization, model, engine and mode meet that meet in any of them.

    Compiling takes half a minute a set-up and has tests of its own (test_compile.py).
    """
    pairs = {
        one: set(combinations(enumerate(astuple(one)), 2))
        for one in offered
        if not one.optimization.startswith("compile")
    }
    left, chosen = set().union(*pairs.values()), set()
    while left:
        best = max(pairs, key=lambda one: len(pairs[one] & left))
        chosen.add(best)
        left -= pairs[best]
    return chosen


FULL = few(OFFERED) - QUICK


@pytest.fixture(scope="module")
def found(request, tmp_path_factory):
    """Observations of two ranks in every set-up that the session asks for."""
    folder = tmp_path_factory.mktemp("table")
    mine = [item for item in request.session.items if item.path == request.path]
    params = [item.callspec.params for item in mine if hasattr(item, "callspec")]
    asked = [one["set_up"] for one in params if "set_up" in one]
    (folder / "asked.json").write_text(json.dumps([astuple(set_up) for set_up in asked]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = forked.run(
        [*command, str(WORKER), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize(
    "set_up",
    [
        pytest.param(set_up, id=set_up.name, marks=() if set_up in QUICK else pytest.mark.full)
        for set_up in OFFERED
        if set_up in QUICK | FULL
    ],
)
def test_what_the_plan_offers_acts_on_every_rank(found, set_up):
    seen = found[set_up.name]
    assert "error" not in seen, seen["error"]
    assert seen["no_effect"] == []
    plan = set_up.plan()
    optimizations, takes_kernel = plan.optimizations, plan.spec.family.takes_attention_kernel
    assert has_checked_effect(optimizations) or optimizations.attention == "sdpa"
    for rank in seen["ranks"]:
        attention = rank["attention"]
        assert attention["kernels"] and (attention["layers"] > 0) == takes_kernel
        assert sum(attention["in_layers"].values()) >= attention["layers"]
        assert attention["parts"]["vae"]["kernel"] or attention["parts"]["vae"]["reason"]
        if set_up.optimization == "math":
            assert set(attention["in_layers"]) == {"aten._safe_softmax.default"}
            cut = set_up.engine == "xdit" and set_up.mode not in ("cfg", "data")
            assert attention["library"] == ("xfuser" if cut else "diffusers")
            assert attention["told"] == ("SDPA_MATH" if cut else "_native_math")


def test_what_is_refused_has_a_reason_that_names_the_option_and_what_fits():
    assert set(OFFERED) >= QUICK
    for set_up, line in REFUSALS:
        assert "\n" not in line and any(word in line for word in ("leave", "use ", "choose")), (set_up, line)


def test_every_optimization_is_in_the_table():
    words = {"attention", *(name.split()[0] for name in OTHERS)}
    of_another_engine = {"cuda_graphs"}  # tests/engines/autoregressive
    of_compiling = {name for name in OPTIMIZATIONS if name.startswith(("inductor_", "compile_"))}
    found = {"compile_mode" if word == "compile" else word for word in words}
    assert found | of_another_engine | of_compiling == set(OPTIMIZATIONS)


@pytest.mark.parametrize(
    ("optimizations", "record", "complaint"),
    [
        (Optimizations(), {"scheduler": {"class": "UniPC"}}, None),
        (Optimizations(vae_slicing=True), {"vae": {"images_per_call": 2}}, "decoded 2 images in one call"),
        (Optimizations(vae_slicing=True), {"vae": {"images_per_call": 1}}, None),
        (
            Optimizations(attention_slicing=True),
            {"attention": {"kernels": {"aten._flash_attention_forward.default": 3}}},
            "--attention_slicing was not used",
        ),
        (
            Optimizations(scheduler="unipc"),
            {"scheduler": {"class": "DDIMScheduler"}},
            "DDIMScheduler stepped",
        ),
        (Optimizations(scheduler="unipc"), {"scheduler": {"class": "FlowUniPC"}}, None),
    ],
)
def test_what_did_nothing_is_named(optimizations, record, complaint):
    rank = {"scheduler": {"class": "DDIMScheduler"}, "attention": {"kernels": {}}, **record}
    lines = optimizations_without_effect(optimizations, [rank])
    assert [complaint in line for line in lines] == ([True] if complaint else []), lines
