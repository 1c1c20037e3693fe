"""How certain a mean is that comes from several starts of the same settings.

Iterations of one start scatter little; starts scatter more (memory layout, clocks, chosen kernels), and
no number of iterations in one start shows that. Few starts of one candidate say little about it either,
so the scatter between starts is taken from all candidates that have several, as a share of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlenergy.diffusion.measure.statistics import t_quantile


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


def spread_of(candidates: Iterable[Sequence[Start]]) -> Spread | None:
    """Scatter between starts, pooled over all candidates with several; None where none has.

    It takes for granted that starts of all candidates scatter alike, relative to their means.
    """
    squares, freedom = 0.0, 0
    for starts in candidates:
        if len(starts) > 1:
            mean = _mean(starts)
            squares += sum((start.mean / mean - 1) ** 2 for start in starts)
            freedom += len(starts) - 1
    return Spread(math.sqrt(squares / freedom), freedom) if freedom else None


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
