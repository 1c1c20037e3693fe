"""The mean of several starts of one set-up, with an interval that knows how much starts differ. Pure.

Iterations of one start scatter little; starts scatter more (memory layout, clocks, chosen kernels), and no
number of iterations in one start shows that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlenergy.diffusion.measure.statistics import t_quantile


@dataclass(frozen=True)
class StartSummary:
    """One figure of one start, per image: mean and standard deviation of its iterations."""

    iterations: int
    mean: float
    deviation: float | None  # None for one iteration


@dataclass(frozen=True)
class Spread:
    """Standard deviation of a start's mean, as a share of the mean over the starts."""

    relative: float
    freedom: int  # degrees of freedom: starts less set-ups


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % interval, whose lower end is 0 or more."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Upper half of the interval."""
        return self.high - self.mean

    def is_within(self, share: float) -> bool:
        """True where the half-width is at most this share of the mean."""
        return self.half_width <= share * self.mean


def mean_of(starts: Sequence[StartSummary]) -> float:
    """The mean of the starts' means: each start counts once, however many iterations it has."""
    return math.fsum(start.mean for start in starts) / len(starts)


def scatter_of(starts: Sequence[StartSummary]) -> Spread:
    """The spread between two or more starts of one set-up."""
    mean, freedom = mean_of(starts), len(starts) - 1
    return Spread(math.sqrt(sum((start.mean / mean - 1) ** 2 for start in starts) / freedom), freedom)


def interval_of(starts: Sequence[StartSummary], spread: Spread | None) -> Interval:
    """The mean of the starts' means, and the wider of the two intervals that are known.

    Within starts: t × sqrt(Σ s² ÷ n) ÷ starts. Between starts: t × spread × mean ÷ sqrt(starts).
    Where neither is known (one iteration of one start), the interval is all numbers from 0 on.

    Raises:
        ValueError: there is no start.
    """
    if not starts:
        raise ValueError("no start to take a mean of")
    mean = mean_of(starts)
    half = max(
        (t_quantile(freedom) * error for error, freedom in errors_of(starts, spread)), default=math.inf
    )
    return Interval(mean, max(mean - half, 0.0), mean + half)


def errors_of(starts: Sequence[StartSummary], spread: Spread | None) -> list[tuple[float, int]]:
    """Standard errors of the mean of the starts' means, each with its degrees of freedom: none, one or two.

    Within starts: sqrt(Σ s² ÷ n) ÷ starts. Between starts: spread × mean ÷ sqrt(starts).
    """
    errors = []
    freedom = sum(start.iterations - 1 for start in starts)
    if freedom > 0 and all(start.deviation is not None for start in starts):
        variance = math.fsum((start.deviation or 0.0) ** 2 / start.iterations for start in starts)
        errors.append((math.sqrt(variance) / len(starts), freedom))
    if spread is not None:
        errors.append((spread.relative * mean_of(starts) / math.sqrt(len(starts)), spread.freedom))
    return errors
