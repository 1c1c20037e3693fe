"""Results that are checked against their own digests, as lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.verify import differences


def print_differences(places: Iterable[Path]) -> int:
    """Print a line for each intact result, and the differences of each other one.

    Args:
        places: result folders, their results.json, or folders below which there are some.

    Returns:
        0: all are intact. 1: some are not.

    Raises:
        UserError: a place holds no result, or one that cannot be read.
    """
    is_intact = True
    for folder in [folder for place in places for folder in _folders(place)]:
        found = differences(folder)
        is_intact = is_intact and not found
        if not found:
            print(f"intact: {folder}")
        for line in found:
            print(f"not intact: {folder}: {line}")
    return 0 if is_intact else 1


def _folders(place: Path) -> Sequence[Path]:
    if place.name == "results.json":
        return [place.parent]
    if (place / "results.json").exists():
        return [place]
    found = sorted(file.parent for file in place.rglob("results.json") if file.parent.name != ".new")
    if not found:
        raise UserError(f"{place} holds no results.json; name a result folder")
    return found
