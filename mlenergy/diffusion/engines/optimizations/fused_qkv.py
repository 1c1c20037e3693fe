"""One matrix product for queries, keys and values, where diffusers' denoiser has three."""

from __future__ import annotations

from typing import Any

import torch

# Fused layer -> the layers that it stands for, as diffusers names both.
_FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "to_added_kv": ("add_k_proj", "add_v_proj"),
}


def fuse_qkv(denoiser: Any) -> dict[str, int]:
    """Fuse a denoiser's projections, and drop the layers that nothing reads any more.

    Returns:
        Attention layers, and linear layers before and after.
    """
    before = _linear_layers(denoiser)
    denoiser.fuse_qkv_projections()
    layers = [part for part in denoiser.modules() if getattr(part, "fused_projections", False)]
    for layer in layers:
        for fused, parts in _FUSED.items():
            if getattr(layer, fused, None) is None:
                continue
            for name in parts:
                if getattr(layer, name, None) is not None:
                    # Diffusers keeps them, to take the fusion back: FLUX.1-dev would hold 4 GB twice.
                    delattr(layer, name)
    return {"layers": len(layers), "linear_layers_before": before, "linear_layers": _linear_layers(denoiser)}


def _linear_layers(denoiser: Any) -> int:
    return sum(isinstance(part, torch.nn.Linear) for part in denoiser.modules())
