"""Bitwise tokens: the codes of their bits, and the image that the codes of all scales sum up to.

The quantiser is the sign: a code has d channels, each +1/√d or -1/√d, a vector of length one (binary
spherical quantisation, arXiv 2406.07548). No codebook exists, so that nothing is looked up.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def codes_of(bits: torch.Tensor, scale: tuple[int, int], patch: int) -> torch.Tensor:
    """Bits of a scale's tokens, (B, rows × columns, d patch²), as codes (B, d, rows patch, columns patch)."""
    signs: torch.Tensor = 2 * bits.transpose(1, 2).unflatten(2, scale).float() - 1
    if patch > 1:
        signs = F.pixel_shuffle(signs, patch)
    return signs / math.sqrt(signs.shape[1])


def tokens_of(image: torch.Tensor, scale: tuple[int, int], patch: int) -> torch.Tensor:
    """The running image (B, d, …) at the size of a scale, as its tokens: (B, rows × columns, d patch²)."""
    resized = _resized(image, (scale[0] * patch, scale[1] * patch))
    if patch > 1:
        resized = F.pixel_unshuffle(resized, patch)
    return resized.flatten(2).transpose(1, 2)


def add_codes(image: torch.Tensor | None, codes: torch.Tensor, full: tuple[int, int]) -> torch.Tensor:
    """The running image after one more scale: the sum of the codes so far at the finest size."""
    enlarged = _resized(codes, full)
    return enlarged if image is None else image + enlarged


def _resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Linear interpolation, up as well as down; published sampling has no other."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
