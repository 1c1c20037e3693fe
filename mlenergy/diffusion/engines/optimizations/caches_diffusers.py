"""The caches that diffusers brings, with what the models here need beyond them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    HunyuanDiT2DModel,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    SD3Transformer2DModel,
    TaylorSeerCacheConfig,
)
from diffusers.hooks import (
    HookRegistry,
    apply_faster_cache,
    apply_first_block_cache,
    apply_mag_cache,
    apply_pyramid_attention_broadcast,
    apply_taylorseer_cache,
)
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.hooks.hooks import CacheContext, _set_cache_context
from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS
from diffusers.models.transformers.hunyuan_transformer_2d import HunyuanDiTBlock

from mlenergy.diffusion.engines.denoisers import denoisers
from mlenergy.diffusion.engines.optimizations.blocks import attention_layers, computing_blocks, feed_forwards

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

_SKIP_EVERY = 2  # PAB and FasterCache compute attention every second step ...
_ATTENTION_RANGE = (100, 950)  # ... where the noise level (0 to 1000) lies in between
_TAYLOR_INTERVAL = 3  # TaylorSeer computes every third step and extrapolates between
# Arguments of the denoisers that carry both halves of the guidance batch.
_TENSOR_FORMATS = {
    "CogVideoXTransformer3DModel": "BFCHW",
    "HunyuanVideoTransformer3DModel": "BCFHW",
}  # axes of a denoiser's input, where it has frames
_GUIDANCE_BATCH = [
    *("hidden_states", "encoder_hidden_states", "timestep", "pooled_projections", "encoder_attention_mask"),
    *("attention_mask", "text_embedding_mask", "encoder_hidden_states_t5", "text_embedding_mask_t5"),
    *("image_meta_size", "style"),
]


def enable_cache(pipeline: Any, plan: Plan) -> Callable[[], None]:
    """Hook the plan's cache into each denoiser; the returned function makes them forget."""
    parts = denoisers(pipeline, plan.spec.family).values()
    forgetting = [_enable(denoiser, pipeline, plan) for denoiser in parts]

    def forget() -> None:
        for one in forgetting:
            one()

    return forget


def _enable(denoiser: Any, pipeline: Any, plan: Plan) -> Callable[[], None]:
    if isinstance(denoiser, SD3Transformer2DModel):
        _let_the_last_block_return_both(denoiser)
    if isinstance(denoiser, HunyuanDiT2DModel):
        # Diffusers' caches know the blocks of other models only.
        metadata = TransformerBlockMetadata(return_hidden_states_index=0)
        TransformerBlockRegistry.register(HunyuanDiTBlock, metadata)
    _METHODS[str(plan.optimizations.cache)](denoiser, plan, _noise_level(pipeline, denoiser, plan))
    registry = HookRegistry.check_if_exists_or_initialize(denoiser)
    registry.invalidate_child_registries_cache()

    def forget() -> None:
        registry.reset_stateful_hooks(recurse=True)
        # Most pipelines name no context for their denoiser's calls, and caches keep their state by its name.
        _set_cache_context(denoiser, CacheContext("all"))

    return forget


def _first_block(denoiser: Any, plan: Plan, _: Callable[[], float]) -> None:
    apply_first_block_cache(denoiser, FirstBlockCacheConfig(threshold=plan.optimizations.cache_threshold))


def _mag(denoiser: Any, plan: Plan, _: Callable[[], float]) -> None:
    config = MagCacheConfig(
        threshold=plan.optimizations.cache_threshold,
        num_inference_steps=plan.steps,
        mag_ratios=FLUX_MAG_RATIOS,
    )
    apply_mag_cache(denoiser, config)


def _taylorseer(denoiser: Any, plan: Plan, _: Callable[[], float]) -> None:
    names = [*attention_layers(denoiser), *feed_forwards(denoiser)]
    config = TaylorSeerCacheConfig(
        cache_interval=_TAYLOR_INTERVAL,
        taylor_factors_dtype=getattr(torch, plan.dtype),
        cache_identifiers=[re.escape(name) for name in names],
    )
    apply_taylorseer_cache(denoiser, config)


def _pyramid(denoiser: Any, _: Plan, noise_level: Callable[[], float]) -> None:
    # Diffusers matches "blocks" anywhere in a name, also in HunyuanVideo's refiner of the text.
    names = tuple(f"^{re.escape(name)}$" for name in attention_layers(denoiser))
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=_SKIP_EVERY,
        cross_attention_block_skip_range=_SKIP_EVERY,
        spatial_attention_timestep_skip_range=_ATTENTION_RANGE,
        cross_attention_timestep_skip_range=_ATTENTION_RANGE,
        spatial_attention_block_identifiers=names,
        cross_attention_block_identifiers=names,
        current_timestep_callback=noise_level,
    )
    apply_pyramid_attention_broadcast(denoiser, config)


def _faster(denoiser: Any, plan: Plan, noise_level: Callable[[], float]) -> None:
    config = FasterCacheConfig(
        spatial_attention_block_skip_range=_SKIP_EVERY,
        spatial_attention_block_identifiers=("blocks",),
        tensor_format=_TENSOR_FORMATS.get(type(denoiser).__name__, "BCHW"),
        is_guidance_distilled=plan.spec.guidance != "classifier-free",
        current_timestep_callback=noise_level,
        _unconditional_conditional_input_kwargs_identifiers=_GUIDANCE_BATCH,
    )
    apply_faster_cache(denoiser, config)


_METHODS: dict[str, Callable[[Any, Plan, Callable[[], float]], None]] = {
    "fbcache": _first_block,
    "magcache": _mag,
    "taylorseer": _taylorseer,
    "pab": _pyramid,
    "fastercache": _faster,
}


def _noise_level(pipeline: Any, denoiser: Any, plan: Plan) -> Callable[[], float]:
    """The present step's timestep, 0 to 1000, whichever way the pipeline tells it."""
    if hasattr(type(pipeline), "current_timestep"):
        return lambda: float(pipeline.current_timestep)
    seen: dict[str, Any] = {}

    def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["timestep"] = kwargs["timestep"] if "timestep" in kwargs else args[1]

    denoiser.register_forward_pre_hook(look, with_kwargs=True)

    def level() -> float:
        step = seen["timestep"]
        return float(step.flatten()[0] if torch.is_tensor(step) else step)

    return level


def _let_the_last_block_return_both(denoiser: Any) -> None:
    """SD3's last block returns no text, which nothing reads; first-block cache computes with it."""
    last = computing_blocks(denoiser)[-1]
    forward = last.forward

    def both(*args: Any, **kwargs: Any) -> Any:
        text, image = forward(*args, **kwargs)
        return (kwargs["encoder_hidden_states"] if text is None else text), image

    last.forward = both
