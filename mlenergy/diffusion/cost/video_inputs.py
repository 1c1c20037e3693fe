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
    return {
        "hidden_states": make(rows, config["in_channels"], frames, height, width),
        "timestep": make(rows),
        "encoder_hidden_states": make(rows, text, config["text_dim"]),
    }


VIDEO_DENOISERS: Mapping[str, Builder] = {
    "WanTransformer3DModel": _wan,
}
