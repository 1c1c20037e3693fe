"""Caches: each one skips work that is counted in three ways, and carries nothing between images."""

import pytest
import torch
from optimization_batches import FOX, WHALE

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect
from mlenergy.diffusion.models.families import FAMILIES

MODELS = {
    "flux": "tiny/flux",
    "sd3": "tiny/sd3",
    "pixart-alpha": "tiny/pixart-alpha",
    "pixart-sigma": "tiny/pixart-sigma",
    "hunyuandit": "tiny/hunyuandit",
    "sdxl": "tiny/sdxl",
    "sd": "tiny/sd1.5",
    "wan": "tiny/wan2.2",  # both denoisers
    "hunyuan-video": "tiny/hunyuanvideo",
    "cogvideox": "tiny/cogvideox",
    "ltx": "tiny/ltx",
}
OFFERED = [
    (engine, method, family.name)
    for family in FAMILIES.values()
    for engine, methods in family.caches.items()
    for method in sorted(methods)
]
# Each method of each engine once, and the family of two denoisers; the others carry the mark full.
QUICK = {
    *{one[:2]: one for one in reversed(OFFERED)}.values(),
    next(one for one in OFFERED if one[2] == "wan"),
}
STEPS = 10


def words_for(engine, method):
    threshold = ["--cache_threshold", "0.9"] if method in ("fbcache", "teacache") else []
    return ["--engine", engine, "--cache_method", method, *threshold]


@pytest.mark.parametrize(
    ("engine", "method", "family"),
    [pytest.param(*one, marks=() if one in QUICK else pytest.mark.full) for one in OFFERED],
)
def test_a_cache_skips_work_and_carries_nothing_to_the_next_image(run, exact, engine, method, family):
    model = MODELS[family]
    bare = exact(model, engine, STEPS, (FOX, WHALE))
    ran = run(model, *words_for(engine, method), batches=(FOX, WHALE, FOX), steps=STEPS)
    found = ran.effects["cache"]
    assert found["method"] == method
    assert 0.1 < found["computed_share"] < 0.95
    fox_flops = exact(model, engine, STEPS).flops
    assert ran.flops < 0.99 * (bare.flops + fox_flops), "operators were counted by torch, not by this project"
    assert not torch.equal(ran.images[0], bare.images[0])
    assert torch.equal(ran.images[0], ran.images[2]), "another image in between changes nothing"
    if found["computed_steps_share"] is not None:
        assert 0 < found["computed_steps_share"] < 0.9
    assert optimizations_without_effect(Optimizations(cache=method), [ran.effects]) == []
    if family == "wan":
        assert set(found["denoisers"]) == {"transformer", "transformer_2"}
        assert found["denoisers"]["transformer_2"]["computed_share"] < 0.9


@pytest.mark.parametrize("engine", ["diffusers", "xdit"])
def test_a_threshold_that_nothing_is_below_skips_nothing_and_is_named(run, exact, engine):
    ran = run("tiny/flux", "--engine", engine, "--use_fbcache", "--cache_threshold", "0", steps=4)
    assert ran.effects["cache"]["computed_share"] == ran.effects["cache"]["computed_steps_share"] == 1
    assert torch.allclose(ran.images[0], exact("tiny/flux", engine, 4).images[0], atol=1e-5)
    (line,) = optimizations_without_effect(Optimizations(cache="fbcache", cache_threshold=0.0), [ran.effects])
    assert "skipped no step at threshold 0" in line


def test_warm_up_is_not_counted(plan_of, cluster):
    from mlenergy.diffusion.engines import load_engine

    words = [*words_for("diffusers", "fbcache"), "--workload.inference_steps", "4"]
    engine = load_engine(plan_of("tiny/flux", *words), cluster)
    for _ in range(3):
        engine.generate(FOX)
    assert engine.effects(2)["cache"]["denoiser_calls"] == 4


def test_xfusers_own_cache_would_carry_over(run, monkeypatch):
    """Without the engine's forgetting, one image changes the next."""
    from mlenergy.diffusion.engines.optimizations import caches_xfuser

    monkeypatch.setattr(caches_xfuser, "_forget", lambda cached: None)
    ran = run("tiny/flux", *words_for("xdit", "fbcache"), batches=(FOX, WHALE, FOX), steps=STEPS)
    assert not torch.equal(ran.images[0], ran.images[2])
