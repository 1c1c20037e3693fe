"""A seeded draw of rows without replacement."""

from __future__ import annotations

import random
from collections.abc import Iterator

# Recorded in every prepared folder. A change of the algorithm changes this name, never its meaning.
ALGORITHM = (
    "v1: Fisher-Yates shuffle of the rows from the first place on, j = i + floor(random() * (n - i)), "
    "random() being MT19937 seeded with the seed; the first num_samples places, in this order"
)


def drawn_rows(seed: int, count: int) -> Iterator[int]:
    """Numbers of rows, each of `count` once, in the order of the draw.

    Memory grows with what is taken, not with `count`: a table of millions costs nothing.
    """
    generator = random.Random(seed)
    moved: dict[int, int] = {}  # place -> row, where it is not the place's own
    for place in range(count):
        other = place + int(generator.random() * (count - place))
        row = moved.pop(other, other)
        if other != place:
            moved[other] = moved.pop(place, place)
        yield row
