"""Facts of a model that predicts an image scale by scale (VAR, Infinity), as data: no torch.

Such a model has no denoising steps: it predicts a map of tokens at each of K scales, coarse to fine, in one
forward a scale. A plan's `steps` are its scales.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Rows and columns of the token map at each scale, coarse to fine.
Schedule = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class NextScale:
    """Everything that a ModelSpec says of an autoregressive model alone.

    config: sizes that its modules are built from and its costs are computed from (VarConfig, ...); it has
        `width`, the features of a token in the transformer.
    schedules: (height, width) in pixels -> the scales of an image of that size; it makes no others.
    files: component -> name of its published checkpoint; a folder of shards has no suffix.
    source: hub repository or folder that holds the files; None for a model that has none.
    classes: labels from 0 that it was trained on; None where a text steers it.
    top_k, top_p: its published sampling: the most likely tokens, and the mass, that are drawn from.
    text_encoder: hub repository of the encoder of its prompts, in transformers' format.
    """

    config: Any
    schedules: Mapping[tuple[int, int], Schedule]
    files: Mapping[str, str]
    source: str | None
    classes: int | None
    top_k: int
    top_p: float
    text_encoder: str | None = None


def tokens_of(schedule: Schedule) -> int:
    """Tokens of one image over all scales."""
    return sum(rows * columns for rows, columns in schedule)


def nearest_size(sizes: Iterable[tuple[int, int]], height_px: int, width_px: int) -> tuple[int, int]:
    """Height and width of the size whose sides differ least: the smallest sum of the ratios of both."""

    def difference(size: tuple[int, int]) -> float:
        return sum(max(pair) / min(pair) for pair in zip(size, (height_px, width_px), strict=True))

    return min(sizes, key=difference)


def attended_pairs(schedule: Schedule) -> int:
    """Pairs of a query and a key over all scales: a scale attends to itself and to all before it."""
    known = pairs = 0
    for rows, columns in schedule:
        known += rows * columns
        pairs += rows * columns * known
    return pairs
