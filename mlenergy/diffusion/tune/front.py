"""The Pareto front of points that are known with intervals only. Pure.

Three things can be said of a point, less being better in every objective:

- dominated: another one is certainly better in every objective. "Certainly" means that the intervals do
  not touch. This is a strict order, so that among any points some are not dominated.
- sure: against every other one it is certainly better in some objective, so that none can dominate it.
- neither: more measuring would tell.

(To call a point dominated as soon as another is certainly better in one objective and not certainly worse
in the others would not do: with wide intervals four points can then dominate each other in a circle.)

The front that is reported is that of the means among the points that are not dominated.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlenergy.diffusion.tune.intervals import Interval


@dataclass(frozen=True)
class Point:
    """A candidate's number and its interval in every objective."""

    number: int
    values: tuple[Interval, ...]


@dataclass(frozen=True)
class Verdict:
    """What can be said of a point."""

    dominated_by: int | None  # a point that is not dominated itself
    behind: int | None  # not dominated, but some point's means beat its own: one of the front that does
    may_lose_to: tuple[int, ...]  # not dominated: points that could still turn out to dominate it

    @property
    def on_front(self) -> bool:
        """Not dominated, and no other point's means are as good in all objectives and better in one."""
        return self.dominated_by is None and self.behind is None

    @property
    def is_sure(self) -> bool:
        """On the front whatever the true means within the intervals are."""
        return self.dominated_by is None and not self.may_lose_to


def dominates(one: Point, other: Point) -> bool:
    """Whether one point is certainly better in every objective."""
    return all(a.high < b.low for a, b in zip(one.values, other.values, strict=True))


def may_dominate(one: Point, other: Point) -> bool:
    """Whether the other point is certainly better in no objective."""
    return not any(b.high < a.low for a, b in zip(one.values, other.values, strict=True))


def judge(points: Sequence[Point]) -> dict[int, Verdict]:
    """A verdict on every point, by its number."""
    contenders = [p for p in points if not any(dominates(other, p) for other in points)]
    return {point.number: _verdict(point, contenders) for point in points}


def unsettled_pairs(points: Sequence[Point], tolerance: float) -> list[tuple[int, int]]:
    """Pairs of points, none of them dominated, of which one may dominate the other.

    Args:
        points: all points.
        tolerance: a pair is left alone where all intervals of both are within this share of their means.
    """
    contenders = [p for p in points if not any(dominates(other, p) for other in points)]
    return [
        (one.number, other.number)
        for one, other in itertools.combinations(contenders, 2)
        if (may_dominate(one, other) or may_dominate(other, one))
        and not (_is_fine(one, tolerance) and _is_fine(other, tolerance))
    ]


def sure_numbers(verdicts: Mapping[int, Verdict]) -> list[int]:
    """Points that are on the front for certain."""
    return [number for number, verdict in verdicts.items() if verdict.is_sure]


def _verdict(point: Point, contenders: Sequence[Point]) -> Verdict:
    better = [other for other in contenders if dominates(other, point)]
    if better:
        return Verdict(min(better, key=_means).number, behind=None, may_lose_to=())
    others = [other for other in contenders if other.number != point.number]
    # The smallest of them has better means than all that have better means than itself: it is on the front.
    ahead = [other for other in others if _has_better_means(other, point)]
    return Verdict(
        dominated_by=None,
        behind=min(ahead, key=_means).number if ahead else None,
        may_lose_to=tuple(other.number for other in others if may_dominate(other, point)),
    )


def _means(point: Point) -> tuple[float, ...]:
    return tuple(value.mean for value in point.values)


def _has_better_means(one: Point, other: Point) -> bool:
    a, b = _means(one), _means(other)
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _is_fine(point: Point, tolerance: float) -> bool:
    return all(value.is_within(tolerance) for value in point.values)
