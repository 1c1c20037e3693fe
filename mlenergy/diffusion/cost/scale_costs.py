"""Costs of one image of a model that predicts scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlenergy.diffusion.models.next_scale import Schedule
    from mlenergy.diffusion.models.spec import Stage


@dataclass(frozen=True)
class ScaleRequest:
    """The image whose costs are asked for.

    schedule: rows and columns of each scale.
    rows: of the transformer's batch for the image: 2 under guidance.
    texts: that are encoded for the image: its prompt, and a negative prompt.
    text_tokens: padded length of the prompt; None where a class steers it.
    itemsize: bytes of a value in the run's dtype.
    top_k: entries that a token is drawn from.
    """

    schedule: Schedule
    rows: int
    texts: int
    text_tokens: int | None
    itemsize: int
    top_k: int


@dataclass(frozen=True)
class ScaleCosts:
    """Counts of one image.

    parameters: component -> values of its weights.
    condition_flops: of encoding what steers the image.
    scale_flops: of each scale, both halves of guidance, its tokens' way into the latent map included.
    decode_flops: from the latent map to pixels.
    activation_bytes: stage -> the peak of what it makes, the cache of keys and values included.
    """

    parameters: Mapping[str, int]
    condition_flops: float
    scale_flops: tuple[float, ...]
    decode_flops: float
    activation_bytes: Mapping[Stage, float]
