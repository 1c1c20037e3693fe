"""Rotary positions in two dimensions, for the tokens of all scales of an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_BASE = 10_000.0


def rotary_table(
    scales: Sequence[tuple[int, int]], grid: tuple[int, int], head_dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines for the tokens of all scales, coarsest first; each (tokens, head_dim / 2), float32.

    A token of a coarse scale stands where it lies on the finest grid: row i of r is row round(i R / r) of R.
    Half of a head's channels turn with the row and half with the column, at frequencies
    10000^(-2j / (head_dim / 2)), as in RoFormer (arXiv 2104.09864) with half the channels for each axis.
    """
    half = head_dim // 2
    frequencies = _BASE ** -(torch.arange(0, half, 2, dtype=torch.float32) / half)
    angles = []
    for scale in scales:
        by_row, by_column = (
            torch.outer(_positions(count, full), frequencies) for count, full in zip(scale, grid, strict=True)
        )
        rows, columns = scale
        per_token = torch.cat(
            [by_row[:, None].expand(-1, columns, -1), by_column[None].expand(rows, -1, -1)], dim=-1
        )
        angles.append(per_token.reshape(rows * columns, half))
    table = torch.cat(angles)
    return table.cos(), table.sin()


def rotate(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Turn neighbouring pairs of channels by their tokens' angles.

    heads: (batch, heads, tokens, head_dim); cosines and sines: (tokens, head_dim / 2).
    """
    even, odd = heads.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cosines - odd * sines, even * sines + odd * cosines], dim=-1)
    return turned.flatten(-2)


def _positions(count: int, full: int) -> torch.Tensor:
    """Places of `count` rows among `full`; halves round to the even place."""
    return (torch.arange(count) * (full / count)).round()
