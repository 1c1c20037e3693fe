"""Split the guidance batch over two ranks: one computes the negative half, one the positive.

Diffusers has no such mode. Its pipelines call the denoiser once a step with both halves in one
batch; here the denoiser of each rank gets its half, and the outputs are gathered before the
pipeline sees them. Everything outside the denoiser runs alike on both ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

# Denoiser class -> arguments that carry the batch in their first dimension, or a dict of such.
# Named one by one: a rotary embedding's length may equal the batch size by chance.
_BATCHED: dict[str, frozenset[str]] = {
    "SD3Transformer2DModel": frozenset(
        {"hidden_states", "timestep", "encoder_hidden_states", "pooled_projections"}
    ),
    "PixArtTransformer2DModel": frozenset(
        {
            "hidden_states",
            "timestep",
            "encoder_hidden_states",
            "encoder_attention_mask",
            "added_cond_kwargs",
        }
    ),
    "HunyuanDiT2DModel": frozenset(
        {
            "hidden_states",
            "timestep",
            "encoder_hidden_states",
            "text_embedding_mask",
            "encoder_hidden_states_t5",
            "text_embedding_mask_t5",
            "image_meta_size",
            "style",
        }
    ),
    "SanaTransformer2DModel": frozenset(
        {"hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask"}
    ),
    "CogVideoXTransformer3DModel": frozenset({"hidden_states", "encoder_hidden_states", "timestep"}),
    "LTXVideoTransformer3DModel": frozenset(
        {"hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask"}
    ),
    "LTX2VideoTransformer3DModel": frozenset(
        {
            *("hidden_states", "encoder_hidden_states", "encoder_attention_mask", "timestep", "sigma"),
            *("audio_hidden_states", "audio_encoder_hidden_states", "audio_encoder_attention_mask"),
            *("video_coords", "audio_coords"),
        }
    ),
    "LatteTransformer3DModel": frozenset({"hidden_states", "encoder_hidden_states", "timestep"}),
    "ZImageTransformer2DModel": frozenset(),  # all by position: lists of rows, and the timestep
    "UNet2DConditionModel": frozenset(
        {"sample", "timestep", "encoder_hidden_states", "timestep_cond", "added_cond_kwargs"}
    ),
}
_WHOLE = frozenset({"image_rotary_emb"})  # the same for every row of the batch


def split_guidance(denoiser: torch.nn.Module, group: dist.ProcessGroup) -> None:
    """Let this rank compute its half of the batch in every call of `denoiser`.

    group: the two ranks that share one guidance batch; the first takes the first half.

    Raises:
        TypeError: a denoiser whose arguments are not known here.
    """
    # xfuser derives some of its models from the diffusers class.
    name = next((kind.__name__ for kind in type(denoiser).__mro__ if kind.__name__ in _BATCHED), None)
    if name is None:
        unknown = type(denoiser).__name__
        raise TypeError(f"the guidance batch of {unknown} cannot be split: its arguments are not known")
    batched = _BATCHED[name]
    rank = dist.get_rank(group)

    def take_half(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        # Positional arguments are, in all these pipelines, the latents, the timestep and (Z-Image) the texts.
        halves = {key: _argument(key, value, batched, rank) for key, value in kwargs.items()}
        return tuple(_half(value, rank) for value in args), halves

    def gather(_: torch.nn.Module, __: Any, output: tuple[Any, ...]) -> tuple[Any, ...]:
        if not isinstance(output, tuple):
            raise TypeError(f"{name} returned {type(output).__name__}; its pipeline must ask for a tuple")
        return tuple(_gathered_rows(part, group) for part in output)

    denoiser.register_forward_pre_hook(take_half, with_kwargs=True)
    denoiser.register_forward_hook(gather)


def _argument(key: str, value: Any, batched: frozenset[str], rank: int) -> Any:
    if key in batched:
        return _half(value, rank)
    if key not in _WHOLE and _has_tensor(value):
        raise TypeError(f"an argument that is not known, {key!r}, carries tensors: its batch cannot be split")
    return value


def _half(value: Any, rank: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _half(part, rank) for key, part in value.items()}
    if isinstance(value, list):
        if len(value) % 2:
            raise ValueError(f"a list of {len(value)} rows has no two guidance halves")
        rows = len(value) // 2
        return value[rank * rows : (rank + 1) * rows]
    if not torch.is_tensor(value) or value.ndim == 0:  # a scalar timestep serves every row
        return value
    if value.shape[0] % 2:
        raise ValueError(f"a batch of {value.shape[0]} rows has no two guidance halves")
    return value.chunk(2)[rank]


def _has_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_tensor(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_has_tensor(part) for part in value)
    return torch.is_tensor(value)


def _gathered_rows(half: Any, group: dist.ProcessGroup) -> Any:
    """A list of rows of one shape is gathered as one tensor, and is a list again."""
    if isinstance(half, list):
        return list(_gathered(torch.stack(half), group).unbind())
    return _gathered(half, group)


def _gathered(half: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    whole = half.new_empty((2 * half.shape[0], *half.shape[1:]))
    dist.all_gather_into_tensor(whole, half.contiguous(), group=group)
    return whole
