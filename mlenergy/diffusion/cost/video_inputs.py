"""The tensors that the denoisers of videos are called with; one builder for each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from mlenergy.diffusion.models.architectures.reader import Architecture

Make = Callable[..., torch.Tensor]
# Architecture, maker of tensors, rows, latent frames, height, width, text tokens -> arguments of one call.
Builder = Callable[[Architecture, Make, int, int, int, int, int], dict[str, Any]]


def _wan(
    architecture: Architecture, make: Make, rows: int, frames: int, height: int, width: int, text: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    patch_t, patch_h, patch_w = config["patch_size"]
    tokens = (frames // patch_t) * (height // patch_h) * (width // patch_w)
    each = (tokens,) if architecture.options.get("expand_timesteps") else ()  # a time step for each token
    return {
        "hidden_states": make(rows, config["in_channels"], frames, height, width),
        "timestep": make(rows, *each),
        "encoder_hidden_states": make(rows, text, config["text_dim"]),
    }


def _cogvideox(
    architecture: Architecture, make: Make, rows: int, frames: int, height: int, width: int, text: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    patch, patch_frames = config["patch_size"], config.get("patch_size_t") or 1
    tokens = frames // patch_frames * (height // patch) * (width // patch)
    rotary = make(tokens, config["attention_head_dim"]), make(tokens, config["attention_head_dim"])
    inputs = {
        "hidden_states": make(rows, frames, config["in_channels"], height, width),
        "timestep": make(rows),
        "encoder_hidden_states": make(rows, text, config["text_embed_dim"]),
    }
    return inputs | ({"image_rotary_emb": rotary} if config["use_rotary_positional_embeddings"] else {})


def _hunyuan_video(
    architecture: Architecture, make: Make, rows: int, frames: int, height: int, width: int, text: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    inputs = {
        "hidden_states": make(rows, config["in_channels"], frames, height, width),
        "timestep": make(rows),
        "encoder_hidden_states": make(rows, text, config["text_embed_dim"]),
        "encoder_attention_mask": make(rows, text),
        "pooled_projections": make(rows, config["pooled_projection_dim"]),
    }
    return inputs | ({"guidance": make(rows)} if config.get("guidance_embeds") else {})


def _ltx(
    architecture: Architecture, make: Make, rows: int, frames: int, height: int, width: int, text: int
) -> dict[str, Any]:
    config = architecture.denoiser.config
    return {
        "hidden_states": make(rows, frames * height * width, config["in_channels"]),
        "encoder_hidden_states": make(rows, text, config["caption_channels"]),
        "timestep": make(rows),
        "encoder_attention_mask": make(rows, text),
        "num_frames": frames,
        "height": height,
        "width": width,
    }


VIDEO_DENOISERS: Mapping[str, Builder] = {
    "WanTransformer3DModel": _wan,
    "CogVideoXTransformer3DModel": _cogvideox,
    "HunyuanVideoTransformer3DModel": _hunyuan_video,
    "LTXVideoTransformer3DModel": _ltx,
}
