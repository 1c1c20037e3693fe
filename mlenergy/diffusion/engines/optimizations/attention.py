"""The denoiser's attention: another kernel than the library's own choice, in the layers that obey one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.models import attention_dispatch

from mlenergy.diffusion.config.attention import ATTENTION, attention_library
from mlenergy.diffusion.engines.denoisers import denoisers
from mlenergy.diffusion.engines.diffusers.routing import route_self_attention
from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

# Denoiser class -> attention modules whose processors call torch's attention themselves and have to
# be led through diffusers' dispatcher. Cross-attention with a mask (PixArt) or of another length
# (HunyuanDiT) is left as it is: not every kernel takes it. FLUX and the newer ones dispatch by themselves.
_ROUTED = {
    "SD3Transformer2DModel": ("attn", "attn2"),
    "PixArtTransformer2DModel": ("attn1",),
    "HunyuanDiT2DModel": ("attn1",),
    "CogVideoXTransformer3DModel": ("attn1",),
    "UNet2DConditionModel": ("attn1", "attn2"),
}
# Denoiser class -> attention modules that dispatch by themselves, with a mask, which not every kernel takes.
_MASKED = {"LTXVideoTransformer3DModel": ("attn2",)}
_NAMES = {
    **_ROUTED,
    "FluxTransformer2DModel": ("attn",),
    "Flux2Transformer2DModel": ("attn",),
    "QwenImageTransformer2DModel": ("attn",),
    "ZImageTransformer2DModel": ("attention",),
    "WanTransformer3DModel": ("attn1", "attn2"),
    "LTXVideoTransformer3DModel": ("attn1",),
}


def set_attention(pipeline: Any, plan: Plan) -> None:
    """Give the denoiser the plan's attention, where the engine has not done so when it split the work.

    Raises:
        UserError: the kernel cannot be had here.
    """
    name = plan.optimizations.attention
    if name == "auto" or attention_library(plan) == "xfuser":
        return  # xfuser was given the kernel's name with its configuration
    if plan.parallel.sequence > 1:
        return  # diffusers' context parallelism was
    backend = ATTENTION[name].diffusers
    assert backend is not None  # config/checks/optimizations.py
    for denoiser in bare_denoisers(pipeline, plan).values():
        names = _ROUTED.get(type(denoiser).__name__)
        if names is not None:
            route_self_attention(denoiser, names)
        use_backend(denoiser, backend)


def check_gpu(plan: Plan) -> None:
    """Refuse a kernel that is not built for this rank's GPU, before anything loads.

    Raises:
        UserError: with the GPUs that it is built for.
    """
    name = plan.optimizations.attention
    built_for = frozenset() if name == "auto" else ATTENTION[name].capabilities
    if plan.device != "cuda" or not built_for:
        return
    major, minor = torch.cuda.get_device_capability()
    if major not in built_for:
        raise UserError(
            f"--attention_backend {name} is built for GPUs of compute capability "
            f"{' and '.join(f'{one}.x' for one in sorted(built_for))}, and this one has {major}.{minor}; use "
            "flash or cudnn"
        )


def use_backend(denoiser: Any, backend: str) -> None:
    """Set a backend of diffusers' dispatcher on the attention layers of one model.

    Raises:
        UserError: a package is missing or too old, or the hub's kernel cannot be fetched.
    """
    registry = attention_dispatch._AttentionBackendRegistry
    active = registry._active_backend
    try:
        denoiser.set_attention_backend(backend)
    except (RuntimeError, ValueError, ImportError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"diffusers' attention {backend} cannot be used: {reason}") from error
    finally:
        # Diffusers also makes it the process's own, for other models too.
        registry.set_active_backend(active)
    for path, module in denoiser.named_modules():
        if path.rpartition(".")[2] in _MASKED.get(type(denoiser).__name__, ()):
            module.processor._attention_backend = None


def bare_denoisers(pipeline: Any, plan: Plan) -> dict[str, Any]:
    """Name -> diffusers model: under some degrees xfuser's wrapper holds it."""
    parts = denoisers(pipeline, plan.spec.family)
    return {name: getattr(part, "module", part) for name, part in parts.items()}


def layers_that_obey(denoiser: Any) -> list[Any]:
    """Attention layers of a bare denoiser, as this rank holds it, that a kernel can be chosen for.

    None for a class that is not known here: config/checks/optimizations.py lets no kernel be chosen for it.
    """
    names = _NAMES.get(_diffusers_class(denoiser), ())
    return [layer for path, layer in denoiser.named_modules() if path.rpartition(".")[2] in names]


def _diffusers_class(denoiser: Any) -> str:
    """xfuser derives some of its models from the diffusers class."""
    return next((kind.__name__ for kind in type(denoiser).__mro__ if kind.__name__ in _NAMES), "")


def backend_told(pipeline: Any, plan: Plan) -> str | None:
    """The attention that the layers' library was told to use, by its own name; None: torch's choice is left.

    Not what runs: a library takes another kernel where the told one does not fit, and says nothing.
    """
    if attention_library(plan) == "xfuser":
        from xfuser.core.distributed import get_runtime_state

        return str(get_runtime_state().attention_backend.name)
    # Not every class of diffusers lists its processors (Lumina 2): such a one cannot be told anything.
    models = bare_denoisers(pipeline, plan).values()
    processors = (each for model in models for each in getattr(model, "attn_processors", {}).values())
    told = {getattr(processor, "_attention_backend", None) for processor in processors} - {None}
    return "+".join(sorted(str(getattr(backend, "value", backend)) for backend in told)) or None
