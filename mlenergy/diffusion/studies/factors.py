"""Improvement of a configuration over a baseline: how many times faster, sparing and small. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mlenergy.diffusion.results.ratio import Ratio, ratio_of
from mlenergy.diffusion.results.repeats import FigureName, SetUp
from mlenergy.diffusion.studies.content import Column, Gap, Measured
from mlenergy.diffusion.studies.outcome import Cell

FactorName = Literal["speed", "energy", "memory"]
NAMES: tuple[FactorName, ...] = ("speed", "energy", "memory")
_FIGURES: dict[FactorName, FigureName] = {"speed": "seconds", "energy": "joules", "memory": "memory"}

FACTOR_COLUMNS = (
    Column("speed_factor", "× faster"),
    Column("energy_factor", "× less energy"),
    Column("memory_factor", "× less memory"),
)


def factors_of(cell: Cell, baseline: Cell | None) -> dict[str, Measured | Gap]:
    """Figures of the baseline ÷ those of a cell, under the keys of FACTOR_COLUMNS; above 1 is better.

    Seconds and joules an image have Welch's interval of the ratio (`results.ratio`). A peak of memory is a
    maximum, without an interval.
    """
    return {f"{name}_factor": _factor(name, cell, baseline) for name in NAMES}


def ratio(name: FactorName, one: SetUp, base: SetUp) -> Ratio | None:
    """The base's figure ÷ that of another set-up; None where one of them is not known."""
    if name == "speed":
        return ratio_of(base.seconds, one.seconds)
    if name == "energy":
        return None if base.joules is None or one.joules is None else ratio_of(base.joules, one.joules)
    if base.peak_memory_gb is None or one.peak_memory_gb is None:
        return None
    return Ratio(base.peak_memory_gb / one.peak_memory_gb, None, None)


def _factor(name: FactorName, cell: Cell, baseline: Cell | None) -> Measured | Gap:
    if cell.set_up is None:
        return Gap(cell.gap or "not measured")
    if baseline is None or baseline.set_up is None:
        return Gap(f"the baseline has no result: {baseline.gap if baseline else 'it was not asked for'}")
    own, base, figure = cell.set_up, baseline.set_up, _FIGURES[name]
    found = ratio(name, own, base)
    if found is None:
        return Gap(own.reasons.get(figure) or base.reasons[figure])
    if cell is baseline:
        return Measured(1.0)  # a mean and itself have not the interval of two
    doubts = dict.fromkeys(message for one in (base, own) for _, message in one.doubts(figure))
    return Measured(found.value, found.low, found.high, tuple(doubts))


@dataclass(frozen=True)
class Effect:
    """Change by one level of one factor, over all pairs of cells that differ in it alone."""

    pairs: int
    geometric_mean: float
    least: float
    most: float


def effect_of(
    name: FactorName, cells: Sequence[Cell], with_level: Callable[[Cell], Cell | None]
) -> Effect | None:
    """How many times better cells become by a level: the geometric mean of the pairs' ratios, and their ends.

    Args:
        name: the figure.
        cells: without the level.
        with_level: the cell that differs from one of these by the level alone, if there is one.

    Returns:
        None where no pair has the figure.
    """
    ratios = []
    for cell in cells:
        partner = with_level(cell)
        if cell.set_up is None or partner is None or partner.set_up is None:
            continue
        found = ratio(name, partner.set_up, cell.set_up)
        if found is not None:
            ratios.append(found.value)
    if not ratios:
        return None
    mean = math.exp(math.fsum(math.log(value) for value in ratios) / len(ratios))
    return Effect(len(ratios), mean, min(ratios), max(ratios))
