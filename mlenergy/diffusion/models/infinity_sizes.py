"""Image sizes of Infinity: eight shapes and their inverses, each in four sizes, and the scales of each.

Side lengths are counted in tokens of 16 pixels. Source: Infinity (arXiv 2412.04431) and its published
configuration, read in November 2026. The scales of a smaller size are the first ones of the largest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Scale = tuple[int, int]  # rows and columns of tokens

TOKEN_PX = 16
SCALE_COUNTS = (7, 10, 12, 13)  # of sizes with the pixels of 256, 512, 768 and 1024 squared

# Height divided by width -> scales of the largest size; the inverses swap rows and columns.
_UPRIGHT: tuple[tuple[Scale, ...], ...] = (
    (
        *((1, 1), (2, 2), (4, 4), (6, 6), (8, 8), (12, 12), (16, 16)),
        *((20, 20), (24, 24), (32, 32), (40, 40), (48, 48), (64, 64)),
    ),
    (
        *((1, 1), (2, 2), (3, 3), (5, 4), (10, 8), (15, 12), (20, 16)),
        *((25, 20), (30, 24), (35, 28), (45, 36), (55, 44), (70, 56)),
    ),
    (
        *((1, 1), (2, 2), (4, 3), (8, 6), (12, 9), (16, 12), (20, 15)),
        *((24, 18), (28, 21), (36, 27), (48, 36), (60, 45), (72, 54)),
    ),
    (
        *((1, 1), (2, 2), (3, 2), (6, 4), (9, 6), (15, 10), (21, 14)),
        *((27, 18), (33, 22), (39, 26), (48, 32), (63, 42), (78, 52)),
    ),
    (
        *((1, 1), (2, 2), (3, 3), (7, 4), (11, 6), (14, 8), (21, 12)),
        *((28, 16), (35, 20), (42, 24), (56, 32), (70, 40), (84, 48)),
    ),
    (
        *((1, 1), (2, 2), (4, 2), (6, 3), (10, 5), (16, 8), (22, 11)),
        *((30, 15), (38, 19), (46, 23), (60, 30), (74, 37), (90, 45)),
    ),
    (
        *((1, 1), (2, 2), (5, 2), (10, 4), (15, 6), (20, 8), (25, 10)),
        *((30, 12), (40, 16), (50, 20), (65, 26), (80, 32), (100, 40)),
    ),
    (
        *((1, 1), (2, 2), (6, 2), (9, 3), (15, 5), (21, 7), (27, 9)),
        *((36, 12), (45, 15), (54, 18), (72, 24), (90, 30), (111, 37)),
    ),
)


@dataclass(frozen=True)
class ImageSize:
    """One size that Infinity generates.

    scales: rows and columns of tokens at every scale, the coarsest first.
    grid: rows and columns of the largest size of this shape; rotary positions are counted on it.
    """

    scales: tuple[Scale, ...]
    grid: Scale

    @property
    def height_px(self) -> int:
        """Height of the image in pixels."""
        return self.scales[-1][0] * TOKEN_PX

    @property
    def width_px(self) -> int:
        """Width of the image in pixels."""
        return self.scales[-1][1] * TOKEN_PX

    @property
    def tokens(self) -> int:
        """Tokens of all scales."""
        return sum(rows * columns for rows, columns in self.scales)


def _all_sizes() -> dict[tuple[int, int], ImageSize]:
    sizes = {}
    for upright in _UPRIGHT:
        lying = tuple((columns, rows) for rows, columns in upright)
        for scales in dict.fromkeys((upright, lying)):
            for count in SCALE_COUNTS:
                size = ImageSize(scales[:count], scales[-1])
                sizes[size.height_px, size.width_px] = size
    return sizes


# (height, width) in pixels -> its scales: 15 shapes in four sizes
SIZES: Mapping[tuple[int, int], ImageSize] = _all_sizes()


def image_size(height_px: int, width_px: int) -> ImageSize | None:
    """The scales of an image of this size; None where Infinity has no such size."""
    return SIZES.get((height_px, width_px))
