"""From device tensors to host arrays, after a window has closed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlenergy.diffusion.engine import Generated

if TYPE_CHECKING:
    from mlenergy.diffusion.distributed.cluster import Cluster

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class HostImages:
    """One rank's images: uint8 (n, height, width, 3), and where they stand in the batch."""

    pixels: Pixels | None  # None on ranks that hold no image
    first_row: int
    postprocess_s: float
    finite: bool  # no NaN and no infinity among the floats
    holds: bool = True  # whether this rank had images at all

    def without_pixels(self) -> HostImages:
        """What is worth keeping when the pixels have gone to rank 0."""
        return replace(self, pixels=None)


def to_host(generated: Generated) -> HostImages:
    """Turn floats in [0, 1] into bytes on the host; clocks how long that takes."""
    if generated.images is None:
        return HostImages(None, generated.first_row, 0.0, finite=True, holds=False)
    begin_s = time.monotonic()
    images = generated.images.detach()
    finite = bool(images.isfinite().all())
    scaled = images.float().nan_to_num().clamp(0, 1).mul(255).round()
    pixels = scaled.byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return HostImages(pixels, generated.first_row, time.monotonic() - begin_s, finite)


def collect(images: HostImages, cluster: Cluster) -> Pixels | None:
    """All ranks' images in the batch's order, on rank 0 (None elsewhere).

    Two ranks that hold the same rows (SDXL under CFG-parallel) count once: the first.
    """
    gathered = cluster.gather_object((images.first_row, images.pixels))
    if gathered is None:
        return None
    rows: dict[int, Pixels] = {}
    for first_row, pixels in gathered:
        for offset, image in enumerate(pixels if pixels is not None else ()):
            rows.setdefault(first_row + offset, image)
    if not rows:
        raise RuntimeError("no rank returned an image")
    return np.stack([rows[row] for row in sorted(rows)])
