"""Options on the newer models, one process: each acts, or its plan refuses it and says what fits.

test_every_mode.py does the same for the first models, in every mode.
"""

from __future__ import annotations

import pytest
import torch
from optimization_batches import WHALE, words_of
from optimization_table import OTHERS

from mlenergy.diffusion.config.args import read_args
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model

MODELS = (
    *("tiny/flux2", "tiny/flux2-klein", "tiny/qwen-image", "tiny/z-image", "tiny/sana", "tiny/lumina2"),
    *("tiny/hidream", "tiny/chroma", "tiny/auraflow", "tiny/kolors", "tiny/cogview4", "tiny/hunyuanimage"),
)
# What works on weights, decoders and schedulers; other files have attention, and no cache is offered.
OPTIONS = {
    name: words
    for name, words in OTHERS.items()
    if name.startswith(("cache", "quantization", "layerwise", "fp8", "vae_dtype", "scheduler"))
}
QUICK = {("tiny/auraflow", "quantization"), ("tiny/cogview4", "vae_dtype")}


def plan_of(model: str, option: str) -> Plan:
    size = ["--workload.height", "256", "--workload.width", "256"] if model == "tiny/hidream" else []
    words = [
        *("--engine", "diffusers", "--workload.dtype", "float32", "--workload.batch_size", "2"),
        *("--workload.inference_steps", "8" if option.startswith("cache") else "2"),
        *(*size, *OPTIONS[option].split()),
    ]
    return make_plan(read_args(words_of(model, words)), resolve_model(model), 1, "cpu", "a device")


OFFERED, REFUSED = [], []
for model in MODELS:
    for option in OPTIONS:
        try:
            plan_of(model, option)
            OFFERED.append((model, option))
        except UserError as error:
            REFUSED.append((model, option, str(error)))


@pytest.mark.parametrize(
    ("model", "option"),
    [
        pytest.param(*one, id=", ".join(one), marks=() if one in QUICK else pytest.mark.full)
        for one in OFFERED
    ],
)
def test_what_the_plan_offers_acts(cluster, model, option):
    plan = plan_of(model, option)
    engine = load_engine(plan, cluster)
    images = engine.generate(WHALE).images
    effects = engine.effects(0)
    engine.close()
    assert torch.isfinite(images).all()
    assert optimizations_without_effect(plan.optimizations, [effects]) == []
    assert (effects["attention"]["layers"] > 0) == plan.spec.family.takes_attention_kernel


def test_what_is_refused_has_a_reason_and_what_fits():
    assert set(OFFERED) >= QUICK
    for model, option, line in REFUSED:
        assert "\n" not in line and any(word in line for word in ("leave", "use ", "choose")), (
            model,
            option,
            line,
        )


@pytest.mark.parametrize("model", MODELS)
def test_no_cache_is_offered_before_it_was_tried(model):
    """Diffusers hooks caches into blocks by metadata that most of these have not, and says nothing."""
    offered = {option for one, option in OFFERED if one == model and option.startswith("cache")}
    assert offered == {f"cache {name}" for name in resolve_model(model).family.caches.get("diffusers", ())}


@pytest.mark.parametrize(
    "model", ["tiny/chroma", "tiny/cogview4", "tiny/qwen-image", "tiny/z-image", "tiny/lumina2"]
)
def test_a_solver_that_would_crash_is_refused(model):
    """Their pipelines hand the scheduler noise levels, which diffusers' solvers of flows take none of."""
    for name in ("dpmsolver++", "unipc", "ddim"):
        with pytest.raises(UserError, match=r"noise levels of its own.*use euler or own"):
            plan_of(model, f"scheduler {name}")
    assert plan_of(model, "scheduler euler").optimizations.scheduler == "euler"


@pytest.mark.full
def test_eulers_method_meets_sanas_own_solver_where_steps_are_many(run, exact):
    """Other noise levels would not lead to the same image."""

    def distance(steps):
        ran = run("tiny/sana", "--engine", "diffusers", "--scheduler", "euler", steps=steps, counted=False)
        assert ran.effects["scheduler"]["class"] == "FlowMatchEulerDiscreteScheduler"
        return float((ran.images[0] - exact("tiny/sana", "diffusers", steps).images[0]).abs().mean())

    few, many = distance(4), distance(48)
    assert 0 < many < 0.4 * few
