"""Settings that an optimization hands to the library: the model's own noise levels, the steps asked for."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from result_samples import make_plan

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.engines.optimizations import caches_diffusers
from mlenergy.diffusion.engines.optimizations.effects import has_checked_effect, optimizations_without_effect
from mlenergy.diffusion.engines.optimizations.schedulers import replace_scheduler, scheduler_record

# A fixed shift (SD3), and one by the image's size (FLUX.1-dev); shift 1 is that of FLUX.1-schnell.
OWN = {
    "sd3": {"shift": 3.0},
    "schnell": {"shift": 1.0},
    "flux": {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
}


STEPS = 8
SOLVERS = {
    "euler": FlowMatchEulerDiscreteScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}


def noise_levels(scheduler, tokens):
    """As FLUX's pipeline asks: levels where the scheduler takes them, and the shift of the image's size."""
    mu = calculate_shift(tokens, 256, 4096, 0.5, 1.15)
    own = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    levels = (
        {"sigmas": torch.linspace(1, 1 / STEPS, STEPS).tolist()} if own else {"num_inference_steps": STEPS}
    )
    scheduler.set_timesteps(**levels, device="cpu", mu=mu)
    assert scheduler.sigmas[-1] == 0
    return scheduler.sigmas[:-1]


@pytest.mark.parametrize("model", OWN)
@pytest.mark.parametrize("name", ["euler", "dpmsolver++", "unipc"])
@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_another_solver_of_a_flow_takes_the_models_own_noise_levels(model, name, tokens):
    """Images after many steps do not show a shift that was lost: the levels do."""
    own = FlowMatchEulerDiscreteScheduler(**OWN[model])
    pipeline = SimpleNamespace(scheduler=own)
    replace_scheduler(pipeline, name)
    assert isinstance(pipeline.scheduler, SOLVERS[name])
    assert scheduler_record(pipeline.scheduler)["prediction_type"] == "flow_prediction"
    factor = (
        math.exp(calculate_shift(tokens, 256, 4096, 0.5, 1.15)) if model == "flux" else OWN[model]["shift"]
    )
    for scheduler in (own, pipeline.scheduler):
        sigmas = noise_levels(scheduler, tokens)
        levels = sigmas / (factor - (factor - 1) * sigmas)
        # Levels from 1 on, an eighth apart, before the shift.
        assert torch.allclose(levels, 1 - torch.arange(STEPS) / STEPS, atol=0.003), (scheduler, levels)


@pytest.mark.parametrize(("config", "call"), [("MagCacheConfig", "apply_mag_cache")])
@pytest.mark.parametrize("steps", [7, 28, 50])
def test_a_cache_is_planned_for_the_steps_and_the_threshold_that_are_asked_for(
    monkeypatch, config, call, steps
):
    given = {}
    monkeypatch.setattr(caches_diffusers, config, lambda **options: options)
    monkeypatch.setattr(caches_diffusers, call, lambda _denoiser, options: given.update(options))
    plan = make_plan(steps=steps, optimizations=Optimizations(cache="magcache", cache_threshold=0.07))
    caches_diffusers._mag(None, plan, lambda: 0.0)
    assert (given["num_inference_steps"], given["threshold"]) == (steps, 0.07)
    assert len(given["mag_ratios"]) > 0


def test_the_first_block_cache_has_the_threshold_that_is_asked_for(monkeypatch):
    given = []
    monkeypatch.setattr(
        caches_diffusers, "apply_first_block_cache", lambda _, config: given.append(config.threshold)
    )
    caches_diffusers._first_block(None, make_plan(optimizations=Optimizations(cache_threshold=0.07)), None)
    assert given == [0.07]


@pytest.mark.parametrize(
    ("guidance", "distilled"), [("classifier-free", False), ("embedded", True), ("none", True)]
)
def test_fastercache_knows_whether_there_is_a_guidance_batch(monkeypatch, guidance, distilled):
    given = []
    monkeypatch.setattr(caches_diffusers, "apply_faster_cache", lambda _, config: given.append(config))
    spec = SimpleNamespace(guidance=guidance)
    level = lambda: 5.0  # noqa: E731
    caches_diffusers._faster(None, SimpleNamespace(spec=spec), level)
    (config,) = given
    assert config.is_guidance_distilled is distilled and config.current_timestep_callback is level


def weights(before, after):
    return {
        "weights": {"transformer": {"bytes_before": before, "bytes": after}},
        "attention": {"kernels": None},
    }


@pytest.mark.parametrize(("after", "told"), [(99, False), (100, True), (101, True)])
def test_weights_that_are_not_smaller_are_no_effect(after, told):
    lines = optimizations_without_effect(Optimizations(layerwise_fp8=True), [weights(100, after)])
    assert (
        lines == ["the weights of transformer did not become smaller; leave their 8-bit option out"]
    ) is told
    assert told or lines == []


def cached(share):
    return {"cache": {"computed_share": share}, "attention": {"kernels": None}}


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ([1.0], True),
        ([1.0, 1.0], True),
        ([1.0, 0.99], False),
        ([0.5], False),
        ([None], True),
        ([None, 0.9], False),
    ],
)
def test_a_cache_that_skipped_on_no_rank_is_told(shares, told):
    lines = optimizations_without_effect(
        Optimizations(cache="taylorseer"), [cached(share) for share in shares]
    )
    assert bool(lines) is told


@pytest.mark.parametrize(("graphs", "told"), [([0, 0], True), ([0, 1], False), ([2], False)])
def test_compiling_nothing_is_told(graphs, told):
    ranks = [{"compile": {"graphs": count}, "attention": {"kernels": None}} for count in graphs]
    assert bool(optimizations_without_effect(Optimizations(compile_mode="default"), ranks)) is told


EFFICIENT = "aten._scaled_dot_product_efficient_attention.default"
FLASH, CUDNN = (
    "aten._scaled_dot_product_flash_attention.default",
    "aten._scaled_dot_product_cudnn_attention.default",
)


@pytest.mark.parametrize(
    ("asked", "in_layers", "told"),
    [
        ("flash", [{FLASH: 4}], None),
        ("flash", [{CUDNN: 4}], "was not used"),
        ("flash", [{FLASH: 3, CUDNN: 1}], "was used in 3 of 4 layers"),
        ("flash", [{FLASH: 4}, {CUDNN: 4}], "was not used"),  # on one of two ranks
        ("math", [{"aten._softmax.default": 4}], None),
        ("auto", [{CUDNN: 4}], None),
        ("flash", [None], None),  # what cannot be seen is not blamed
        ("flash", [{CUDNN: 4}, None], None),
        ("flash", [{}], "was not used"),
        ("sage", [{}], None),  # some versions of it run by no operator
        ("sage", [{CUDNN: 4}], "was not used"),
        ("sage", [{"sageattention.qk_int8_sv_f16_accum_f32_attn.default": 3, CUDNN: 1}], "in 3 of 4 layers"),
    ],
)
def test_an_attention_that_was_asked_for_has_to_run_in_every_layer_of_every_rank(asked, in_layers, told):
    # The kernel of cross-attention, which none is chosen for, is seen in all cases.
    seen = [one if one is None else {**one, EFFICIENT: 4} for one in in_layers]
    ranks = [
        {"attention": {"kernels": kernels, "in_layers": one, "layers": 4}}
        for kernels, one in zip(seen, in_layers, strict=True)
    ]
    lines = optimizations_without_effect(Optimizations(attention=asked), ranks)
    assert len(lines) == (told is not None) and all(told in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "checked"),
    [
        *(({}, False), ({"attention": "sdpa"}, False), ({"attention": "math"}, True)),
        *(({name: True}, True) for name in ("layerwise_fp8", "fp8_t5_encoder", "vae_tiling", "vae_slicing")),
        *(({"cache": "fbcache"}, True), ({"compile_mode": "default"}, True)),
        *(({"quantization": "fp8-dynamic"}, True), ({"scheduler": "euler"}, True)),
    ],
)
def test_what_is_looked_at_before_a_result_counts(changes, checked):
    assert has_checked_effect(Optimizations(**changes)) is checked
