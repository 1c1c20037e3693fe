"""How certain a mean is that comes from several starts of the same settings.

Iterations of one start scatter little; starts scatter more (memory layout, clocks, chosen kernels), and
no number of iterations in one start shows that. Few starts of one candidate say little about it either,
so the scatter between starts is taken from all candidates that have several, as a share of the mean. A
candidate that scatters so much more than the rest that chance does not explain it is left to itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlenergy.diffusion.measure.statistics import t_quantile

_OUTLIER = 0.01


@dataclass(frozen=True)
class Start:
    """A figure of one start, per image: its iterations' mean and standard deviation."""

    iterations: int
    mean: float
    deviation: float | None  # None for one iteration


@dataclass(frozen=True)
class Spread:
    """Standard deviation of a start's mean, as a share of the candidate's mean."""

    relative: float
    freedom: int  # degrees of freedom: starts less candidates


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % interval, which ends at 0 below."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Upper half of the interval."""
        return self.high - self.mean

    def is_within(self, share: float) -> bool:
        """Whether the half-width is at most this share of the mean."""
        return self.half_width <= share * self.mean


@dataclass(frozen=True)
class Spreads:
    """Scatter between starts: of the candidates that scatter alike, and of those that stand out."""

    common: Spread | None  # None: no candidate has several starts
    own: Mapping[int, Spread]  # candidate -> its own, where it stands out

    def of(self, candidate: int) -> Spread | None:
        """What holds for a candidate."""
        return self.own.get(candidate, self.common)


def spreads_of(candidates: Mapping[int, Sequence[Start]]) -> Spreads:
    """Scatter between starts, pooled over the candidates that have several and scatter alike.

    One after another, the candidate with the largest variance stands out where an F-test against all
    others together gives p < 0.01 ÷ their number.
    """
    common = {number: _scatter(starts) for number, starts in candidates.items() if len(starts) > 1}
    own = {}
    while len(common) > 1:
        widest = max(common, key=lambda number: common[number].relative)
        rest = _pooled([spread for number, spread in common.items() if number != widest])
        if not _stands_out(common[widest], rest, _OUTLIER / len(common)):
            break
        own[widest] = common.pop(widest)
    return Spreads(_pooled(list(common.values())) if common else None, own)


def _scatter(starts: Sequence[Start]) -> Spread:
    mean, freedom = _mean(starts), len(starts) - 1
    return Spread(math.sqrt(sum((start.mean / mean - 1) ** 2 for start in starts) / freedom), freedom)


def _pooled(spreads: Sequence[Spread]) -> Spread:
    freedom = sum(spread.freedom for spread in spreads)
    variance = sum(spread.freedom * spread.relative**2 for spread in spreads) / freedom
    return Spread(math.sqrt(variance), freedom)


def _stands_out(one: Spread, rest: Spread, level: float) -> bool:
    from scipy.stats import f

    if rest.relative == 0:
        return one.relative > 0
    return bool(f.sf((one.relative / rest.relative) ** 2, one.freedom, rest.freedom) < level)


def interval_of(starts: Sequence[Start], spread: Spread | None) -> Interval:
    """The mean of the starts' means, and the wider of the two intervals that are known.

    Within starts: t × sqrt(Σ s² ÷ n) ÷ starts. Between starts: t × spread × mean ÷ sqrt(starts).
    Where neither is known (one iteration of one start), the interval is all numbers from 0 on.

    Raises:
        ValueError: there is no start.
    """
    if not starts:
        raise ValueError("no start to take a mean of")
    mean = _mean(starts)
    known = [half for half in (_within(starts), _between(starts, mean, spread)) if half is not None]
    half = max(known, default=math.inf)
    return Interval(mean, max(mean - half, 0.0), mean + half)


def _mean(starts: Sequence[Start]) -> float:
    return math.fsum(start.mean for start in starts) / len(starts)


def _within(starts: Sequence[Start]) -> float | None:
    freedom = sum(start.iterations - 1 for start in starts)
    if freedom < 1 or any(start.deviation is None for start in starts):
        return None
    variance = math.fsum((start.deviation or 0.0) ** 2 / start.iterations for start in starts)
    return t_quantile(freedom) * math.sqrt(variance) / len(starts)


def _between(starts: Sequence[Start], mean: float, spread: Spread | None) -> float | None:
    if spread is None:
        return None
    return t_quantile(spread.freedom) * spread.relative * mean / math.sqrt(len(starts))
