"""From device tensors to host arrays, after a window has closed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlenergy.diffusion.engine import Generated

if TYPE_CHECKING:
    from mlenergy.diffusion.distributed.cluster import Cluster

Pixels = np.ndarray[Any, np.dtype[np.uint8]]  # (n, height, width, 3), of videos (n, frames, height, width, 3)


@dataclass(frozen=True)
class HostOutput:
    """One rank's output of one call, on the host."""

    pixels: Pixels | None  # None on ranks that hold no output
    first_row: int  # index in the batch of the first of them
    postprocess_s: float
    finite: bool  # no NaN and no infinity among the floats


def to_host(generated: Generated) -> HostOutput:
    """Turn floats in [0, 1] into bytes on the host; clocks how long that takes."""
    if generated.images is None:
        return HostOutput(None, generated.first_row, 0.0, finite=True)
    begin_s = time.monotonic()
    images = generated.images.detach()
    finite = bool(images.isfinite().all())
    scaled = images.float().nan_to_num().clamp(0, 1).mul(255).round()
    pixels = scaled.byte().movedim(-3, -1).contiguous().cpu().numpy()
    return HostOutput(pixels, generated.first_row, time.monotonic() - begin_s, finite)


def collect(output: HostOutput, cluster: Cluster) -> Pixels | None:
    """All ranks' outputs in the batch's order, on rank 0 (None elsewhere); every rank calls it.

    Two ranks that hold the same rows (SDXL under CFG-parallel) count once: the first.
    """
    gathered = cluster.gather_object((output.first_row, output.pixels))
    if gathered is None:
        return None
    rows: dict[int, Pixels] = {}
    for first_row, pixels in gathered:
        for offset, image in enumerate(pixels if pixels is not None else ()):
            rows.setdefault(first_row + offset, image)
    if not rows:
        raise RuntimeError("no rank returned an image")
    return np.stack([rows[row] for row in sorted(rows)])
