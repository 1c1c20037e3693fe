"""Another attention in the denoiser than the engine takes by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers.models import attention_dispatch

from mlenergy.diffusion.config.optimizations import AttentionName
from mlenergy.diffusion.engines.diffusers.routing import route_self_attention
from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

IN_DIFFUSERS: dict[AttentionName, str] = {
    "sdpa": "native",
    "math": "_native_math",
    "flash": "_native_flash",
    "efficient": "_native_efficient",
    "cudnn": "_native_cudnn",
    "fa2": "flash",
    "fa3": "_flash_3",
    "sage": "sage",
}
IN_XFUSER: dict[AttentionName, str] = {
    "sdpa": "sdpa",
    "math": "sdpa_math",
    "flash": "sdpa_flash",
    "efficient": "sdpa_efficient",
    "cudnn": "cudnn",
    "fa2": "flash",
    "fa3": "flash_3",
    "sage": "sage",
}
# Denoiser class -> attention modules whose processors call torch's attention themselves and have to
# be led through diffusers' dispatcher. Cross-attention with a mask (PixArt) or of another length
# (HunyuanDiT) is left as it is: not every kernel takes it. FLUX dispatches by itself.
_ROUTED = {
    "SD3Transformer2DModel": ("attn", "attn2"),
    "PixArtTransformer2DModel": ("attn1",),
    "HunyuanDiT2DModel": ("attn1",),
    "UNet2DConditionModel": ("attn1", "attn2"),
}


def set_attention(pipeline: Any, plan: Plan) -> None:
    """Give the denoiser the plan's attention, where the engine has not done so when it split the work.

    Raises:
        UserError: the kernel cannot be used here.
    """
    if plan.optimizations.attention == "auto" or is_split(plan):
        return
    denoiser = getattr(pipeline, plan.spec.family.denoiser)
    names = _ROUTED.get(type(denoiser).__name__)
    if names is not None:
        route_self_attention(denoiser, names)
    registry = attention_dispatch._AttentionBackendRegistry
    active = registry._active_backend
    try:
        denoiser.set_attention_backend(IN_DIFFUSERS[plan.optimizations.attention])
    except (RuntimeError, ValueError, ImportError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"--attention_backend {plan.optimizations.attention} cannot be used: {reason}"
        ) from error
    finally:
        # Diffusers also makes it the process's own, for other models too.
        registry.set_active_backend(active)


def is_split(plan: Plan) -> bool:
    """Whether the engine's own parallel attention runs, which takes the kernel's name itself."""
    if plan.engine == "xdit" and plan.spec.family.denoiser == "transformer":
        return plan.parallel.world_size > 1
    return plan.engine == "diffusers" and plan.parallel.sequence > 1
