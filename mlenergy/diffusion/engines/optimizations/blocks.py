"""A denoiser's repeated blocks, attention layers and feed-forward layers."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import AttentionModuleMixin, FeedForward
from diffusers.models.attention_processor import Attention

_LISTS = (
    *("transformer_blocks", "joint_transformer_blocks", "single_transformer_blocks", "blocks"),
    *("double_stream_blocks", "single_stream_blocks"),  # HiDream
    *("noise_refiner", "context_refiner", "layers"),  # Z-Image, in this order
)
_UNET_BLOCK = "BasicTransformerBlock"


def computing_blocks(denoiser: Any) -> list[Any]:
    """The transformer blocks of a denoiser in the order in which they run."""
    bare = getattr(denoiser, "module", denoiser)  # xfuser's wrapper holds the model so
    lists = [
        getattr(bare, name) for name in _LISTS if isinstance(getattr(bare, name, None), torch.nn.ModuleList)
    ]
    blocks = [block for blocks in lists for block in blocks]
    return blocks or [part for part in bare.modules() if type(part).__name__ == _UNET_BLOCK]


def attention_layers(denoiser: Any) -> dict[str, Any]:
    """Name -> attention layer inside of the denoiser's transformer blocks."""
    return _named(denoiser, (Attention, AttentionModuleMixin))


def feed_forwards(denoiser: Any) -> dict[str, Any]:
    """Name -> feed-forward layer inside of the denoiser's transformer blocks."""
    return _named(denoiser, (FeedForward,))


def _named(denoiser: Any, kinds: tuple[type, ...]) -> dict[str, Any]:
    inside = {id(part) for block in computing_blocks(denoiser) for part in block.modules()}
    return {
        name: part
        for name, part in denoiser.named_modules()
        if isinstance(part, kinds) and id(part) in inside
    }
