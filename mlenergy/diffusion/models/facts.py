"""Sizes that a pipeline's own configuration files decide. Pure: takes configurations, reads no file.

The pipelines of diffusers take each of them from the same keys (0.42.1), so that what is planned,
counted and run agree, also for a model that differs from its family's published ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.spec import Family

Config = Mapping[str, Any]

CLIP_TOKENS = 77  # positions of CLIP's class in transformers, where its configuration names none
_PATCH_SIZE = 2  # of the transformers' classes in diffusers, where their configuration names none


def latent_factor(vae: Config) -> int:
    """Pixels per latent cell and side: every block of the VAE but the last halves the image.

    VAEs of videos name the factor, or list which of their blocks halve the time as well, one entry a halving
    (so does Qwen-Image's).

    Raises:
        UserError: the configuration has no blocks.
    """
    for key in ("scale_factor_spatial", "spatial_compression_ratio"):
        if isinstance(vae.get(key), int):
            return int(vae[key])
    halvings = vae.get("temperal_downsample")
    if isinstance(halvings, (list, tuple)):
        return 1 << len(halvings)
    scaled = vae.get("spatio_temporal_scaling")
    if isinstance(scaled, (list, tuple)):  # LTX-Video's, on patches of pixels
        return int(vae.get("patch_size") or 1) << sum(map(bool, scaled))
    blocks = vae.get("block_out_channels") or vae.get(
        "encoder_block_out_channels"
    )  # the latter: AutoencoderDC
    if not isinstance(blocks, (list, tuple)) or not blocks:
        raise UserError(
            "the VAE's config.json has no list block_out_channels, from which diffusers takes the size of "
            "the latents; give a model whose VAE has one"
        )
    return 1 << (len(blocks) - 1)


def frame_factor(vae: Config) -> int:
    """Frames per latent frame of a video's VAE, but for the first, which has its own; 1 of images."""
    for key in ("scale_factor_temporal", "temporal_compression_ratio"):
        if isinstance(vae.get(key), int | float):
            return int(vae[key])
    halvings = vae.get("temperal_downsample", vae.get("spatio_temporal_scaling"))
    patch = int(vae.get("patch_size_t") or 1)
    return patch << sum(map(bool, halvings)) if isinstance(halvings, (list, tuple)) else patch


def has_frames(vae: Config) -> bool:
    """True for a VAE of videos, also one that a pipeline of images uses."""
    keys = ("temperal_downsample", "temporal_compression_ratio", "scale_factor_temporal")
    return any(key in vae for key in keys) or "spatio_temporal_scaling" in vae


def latent_channels(vae: Config) -> int | None:
    """Channels of the VAE's latents, which those of videos call z_dim; None where it names none."""
    channels = vae.get("latent_channels", vae.get("z_dim"))
    return channels if isinstance(channels, int) else None


def attention_heads(denoiser: Config) -> int | None:
    """Heads of the denoiser, which Z-Image calls n_heads; None where no one number is named."""
    heads = denoiser.get("num_attention_heads", denoiser.get("n_heads"))
    return heads if isinstance(heads, int) else None


def patch_size(family: Family, denoiser: Config) -> int:
    """Latent cells per token and side; 1 for a U-Net, which takes cells."""
    if family.denoiser == "unet":
        return 1
    size = denoiser.get("patch_size") or _PATCH_SIZE  # of videos also frames, height, width
    return family.packed_cells or int(size[-1] if isinstance(size, (list, tuple)) else size)


def patch_frames(denoiser: Config) -> int:
    """Latent frames per token of a video's denoiser."""
    size = denoiser.get("patch_size")
    if isinstance(size, (list, tuple)):
        return int(size[0])
    return int(denoiser.get("patch_size_t") or 1)


def clip_tokens(encoder: Config) -> int:
    """Tokens that every prompt is padded to before CLIP: as many as it has positions."""
    return int(encoder.get("max_position_embeddings") or CLIP_TOKENS)


def default_size_px(like_px: int, like_factor: int, denoiser: Config, factor: int) -> tuple[int, int]:
    """Height and width that the pipeline takes where none is given.

    Args:
        like_px: default of the family's published model, for a denoiser that names no size (FLUX).
        like_factor: of that model's VAE.
        denoiser: whose sample_size counts latent cells, one number or height and width.
        factor: of the model's own VAE.
    """
    cells = denoiser.get("sample_size")
    if isinstance(cells, (list, tuple)) and len(cells) == 2:
        return int(cells[0]) * factor, int(cells[1]) * factor
    side = cells if isinstance(cells, int) else like_px // like_factor
    return side * factor, side * factor


def scaled_size(height_px: int, width_px: int, cells: int, factor: int) -> tuple[int, int]:
    """Height and width that HiDream's pipeline makes of a size: of the area of a square of `cells` a side.

    After diffusers 0.42.1: both sides are scaled alike and rounded down to multiples of two cells.
    """
    scale = math.sqrt((cells * factor) ** 2 / (width_px * height_px))
    step = 2 * factor
    return int(height_px * scale // step * step), int(width_px * scale // step * step)


def embeds_guidance(denoiser: Config) -> bool:
    """True for a U-Net with the guidance scale as an input (LCM): its pipeline runs no guidance batch."""
    return denoiser.get("time_cond_proj_dim") is not None
