"""Modes, caches, sizes and fields of tiny models that several families share."""

from __future__ import annotations

from typing import Any

from mlenergy.diffusion.models.spec import CacheMethod, Mode

ONE_TEXT = ("text_encoder",)

SEQUENCE: frozenset[Mode] = frozenset({"ulysses", "ring"})
GUIDED: frozenset[Mode] = frozenset({"cfg", "data"})
# Diffusers has neither PipeFusion nor a parallel VAE.
XDIT_ONLY: frozenset[Mode] = frozenset({"pipefusion", "parallel-vae"})

# TaylorSeer and PAB work on the attention layers that every denoiser of the first list has; first-block
# cache on a transformer's blocks. MagCache's ratios are measured for each model, and diffusers brings FLUX's.
UNET_CACHES: frozenset[CacheMethod] = frozenset({"taylorseer", "pab"})
TRANSFORMER_CACHES: frozenset[CacheMethod] = frozenset({"fbcache", "taylorseer", "pab", "fastercache"})

SIZE_1024: dict[str, Any] = {"default_height_px": 1024, "default_width_px": 1024}
SIZE_256: dict[str, Any] = {"default_height_px": 256, "default_width_px": 256}

# What the tiny models of videos have in common, but for those that say otherwise.
TINY_VIDEO: dict[str, Any] = {
    "default_steps": 4,
    "default_dtype": "float32",
    "default_height_px": 64,
    "default_width_px": 96,
    "default_num_frames": 9,
    "default_fps": 8,
    "source": "built in the process with random weights",
}
