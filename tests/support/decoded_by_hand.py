"""Pixels of latents, by the VAE of diffusers alone: what any way to decode them has to give."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import torch

from mlenergy.diffusion.weights.tiny import tiny_folder


@torch.no_grad()
def decoded_by_hand(
    model: str, latents: torch.Tensor, *, tiling: bool = False, slicing: bool = False
) -> torch.Tensor:
    """Float32 pixels in [0, 1], (n, 3, height, width), of videos (n, frames, 3, height, width).

    latents: as the decoder takes them, (n, channels, [frames,] height, width).
    """
    folder = Path(tiny_folder(model))
    _, name = json.loads((folder / "model_index.json").read_text())["vae"]
    vae = getattr(diffusers, name).from_pretrained(folder / "vae", torch_dtype=torch.float32)
    if tiling:
        vae.enable_tiling()
    if slicing:
        vae.enable_slicing()
    of_a_step = (None,) if name == "AutoencoderKLLTXVideo" else ()
    pixels = vae.decode(latents, *of_a_step, return_dict=False)[0]
    if pixels.ndim == 5:
        pixels = pixels.movedim(1, 2)
    return (pixels / 2 + 0.5).clamp(0, 1)
