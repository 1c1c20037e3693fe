"""The denoiser's attention: another kernel than the engine's own choice, and the kernels that really run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models import attention_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

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

_KERNEL_WORDS = ("attention", "attn", "flash", "sage")
# What attention is made of where no kernel does it in one.
_UNFUSED = ("aten._softmax.default", "aten._safe_softmax.default")


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
    """True where the engine's own parallel attention runs, which takes the kernel's name itself."""
    if plan.engine == "xdit" and plan.spec.family.denoiser == "transformer":
        return plan.parallel.world_size > 1
    return plan.engine == "diffusers" and plan.parallel.sequence > 1


def attention_kernels(denoiser: torch.nn.Module, generate: Callable[[], object]) -> dict[str, int]:
    """Operator -> how often it ran in the first call of `denoiser` that `generate` makes.

    Operators are those that torch's dispatcher sees: attention kernels, and softmax where
    attention is done in parts. Compiled code runs uncompiled while it is watched.
    """
    watch = _Watch()
    state = {"is_on": False, "is_done": False}

    def enter(*_: Any) -> None:
        if not state["is_done"]:
            watch.__enter__()
            state["is_on"] = True

    def leave(*_: Any) -> None:
        if state["is_on"]:
            watch.__exit__(None, None, None)
            state.update(is_on=False, is_done=True)

    handles = [
        denoiser.register_forward_pre_hook(enter),
        denoiser.register_forward_hook(leave, always_call=True),
    ]
    try:
        generate()
    finally:
        for handle in handles:
            handle.remove()
    return dict(watch.found)


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if name in _UNFUSED or any(word in name for word in _KERNEL_WORDS):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))
