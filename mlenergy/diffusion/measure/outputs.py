"""From device tensors to host arrays, after a window has closed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlenergy.diffusion.engine import Generated

if TYPE_CHECKING:
    import torch

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


def collect_latents(generated: Generated, cluster: Cluster) -> list[torch.Tensor] | None:
    """All ranks' final latents on the host, one an output in the batch's order, on rank 0 (None elsewhere).

    Every rank calls it, after a window has closed. Rows are taken as `collect` takes those of outputs.

    Raises:
        RuntimeError: a rank's decoder took another number of latents than there are outputs.
    """
    own = [row for part in generated.latents for row in part.cpu()]
    if generated.images is not None and len(own) != len(generated.images):
        raise RuntimeError(f"the decoder took {len(own)} latents for {len(generated.images)} outputs")
    gathered = cluster.gather_object((generated.first_row, own))
    if gathered is None:
        return None
    rows: dict[int, torch.Tensor] = {}
    for first_row, latents in gathered:
        for offset, one in enumerate(latents):
            rows.setdefault(first_row + offset, one)
    return [rows[row] for row in sorted(rows)]
