"""Means of several starts with their intervals, and the Pareto front of such points. Pure.

**Intervals.** Iterations of one start scatter little; starts scatter more (memory layout, clocks, chosen
kernels), and no number of iterations in one start shows that. Few starts of one candidate say little about it
either, so the scatter between starts is pooled over all candidates that have several, as a share of the mean.
A candidate that scatters so much more than the rest that chance does not explain it keeps its own.

**The front.** Less is better in every objective. A point is

- dominated, where another one is significantly better in every objective: their intervals do not touch. This
  is a strict order, so that among any points some are not dominated;
- sure, where it is significantly better than each other one in some objective, so that none can dominate it;
- neither, where more measuring could decide.

(To call a point dominated as soon as another is significantly better in one objective and not significantly
worse in the others would not do: with wide intervals four points can then dominate each other in a circle.)

The reported front is that of the means among the points that are not dominated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlenergy.diffusion.measure.starts import Interval, Spread, StartSummary, scatter_of

_OUTLIER_P = 0.01


@dataclass(frozen=True)
class Spreads:
    """Scatter between starts: of the candidates that scatter alike, and of the outliers."""

    common: Spread | None  # None: no candidate has several starts
    own: Mapping[int, Spread]  # by candidate, of outliers only

    def of(self, candidate: int) -> Spread | None:
        """The spread that holds for a candidate."""
        return self.own.get(candidate, self.common)


@dataclass(frozen=True)
class Point:
    """A candidate's number and its interval in every objective."""

    number: int
    values: tuple[Interval, ...]


@dataclass(frozen=True)
class Verdict:
    """Place of a point relative to all others."""

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


def spreads_of(candidates: Mapping[int, Sequence[StartSummary]]) -> Spreads:
    """Scatter between starts, pooled over the candidates that have several and scatter alike.

    One after another, the candidate with the largest variance is an outlier where an F-test against all
    others together gives p < 0.01 ÷ their number.
    """
    common = {number: scatter_of(starts) for number, starts in candidates.items() if len(starts) > 1}
    own = {}
    while len(common) > 1:
        widest = max(common, key=lambda number: common[number].relative)
        rest = _pooled([spread for number, spread in common.items() if number != widest])
        if not _is_outlier(common[widest], rest, _OUTLIER_P / len(common)):
            break
        own[widest] = common.pop(widest)
    return Spreads(_pooled(list(common.values())) if common else None, own)


def judge(points: Sequence[Point]) -> dict[int, Verdict]:
    """A verdict on every point, by its number."""
    contenders = _contenders(points)
    return {point.number: _verdict(point, contenders) for point in points}


def unsettled_pairs(points: Sequence[Point], tolerance: float) -> list[tuple[int, int]]:
    """Pairs of points, none of them dominated, of which one may dominate the other.

    Args:
        points: all points.
        tolerance: a pair is left alone where all intervals of both are within this share of their means.
    """
    return [
        (one.number, other.number)
        for one, other in itertools.combinations(_contenders(points), 2)
        if (_may_dominate(one, other) or _may_dominate(other, one))
        and not all(value.is_within(tolerance) for value in (*one.values, *other.values))
    ]


def _pooled(spreads: Sequence[Spread]) -> Spread:
    freedom = sum(spread.freedom for spread in spreads)
    variance = sum(spread.freedom * spread.relative**2 for spread in spreads) / freedom
    return Spread(math.sqrt(variance), freedom)


def _is_outlier(one: Spread, rest: Spread, level: float) -> bool:
    from scipy.stats import f

    if rest.relative == 0:
        return one.relative > 0
    return bool(f.sf((one.relative / rest.relative) ** 2, one.freedom, rest.freedom) < level)


def _contenders(points: Sequence[Point]) -> list[Point]:
    """The points that are not dominated."""
    return [point for point in points if not any(_dominates(other, point) for other in points)]


def _dominates(one: Point, other: Point) -> bool:
    """True where one point is significantly better in every objective."""
    return all(a.high < b.low for a, b in zip(one.values, other.values, strict=True))


def _may_dominate(one: Point, other: Point) -> bool:
    """True where the other point is significantly better in no objective."""
    return not any(b.high < a.low for a, b in zip(one.values, other.values, strict=True))


def _verdict(point: Point, contenders: Sequence[Point]) -> Verdict:
    better = [other for other in contenders if _dominates(other, point)]
    if better:
        return Verdict(min(better, key=_means).number, behind=None, may_lose_to=())
    others = [other for other in contenders if other.number != point.number]
    # The smallest of them has better means than all that have better means than itself: it is on the front.
    ahead = [other for other in others if _has_better_means(other, point)]
    return Verdict(
        dominated_by=None,
        behind=min(ahead, key=_means).number if ahead else None,
        may_lose_to=tuple(other.number for other in others if _may_dominate(other, point)),
    )


def _means(point: Point) -> tuple[float, ...]:
    return tuple(value.mean for value in point.values)


def _has_better_means(one: Point, other: Point) -> bool:
    a, b = _means(one), _means(other)
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))
