"""Mean, spread and confidence interval of figures; no torch, scipy only where an interval is asked for."""

from __future__ import annotations

import math
import statistics as stdlib
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
DRIFT_THRESHOLD = 0.02  # a mean that moves by more between first and last third is no steady state
LEAST_FOR_DRIFT = 6  # two iterations a third; the spread of one alone is unknown


@dataclass(frozen=True)
class Summary:
    """Figures in the unit of the values. The interval is of the mean, two-sided, 95 %."""

    count: int
    mean: float
    median: float
    standard_deviation: float | None  # of the sample (n - 1); None for one value
    minimum: float
    maximum: float
    p90: float
    p99: float
    ci95_low: float | None
    ci95_high: float | None
    ci95_reason: str | None  # why there is no interval

    @property
    def ci95_half_width(self) -> float | None:
        """Half the interval's width, None where there is none."""
        return None if self.ci95_high is None else self.ci95_high - self.mean


@dataclass(frozen=True)
class StopRule:
    """Go on until the interval's half-width is within a share of the mean."""

    target: float  # 0.01: within 1 % of the mean
    least: int = 5
    most: int = 100

    def is_met(self, durations_s: Sequence[float]) -> bool:
        """True where these durations are certain enough, or as many as there may be."""
        if len(durations_s) < self.least:
            return False
        if len(durations_s) >= self.most:
            return True
        half = summarize(durations_s).ci95_half_width
        return half is not None and half <= self.target * stdlib.fmean(durations_s)


@dataclass(frozen=True)
class Drift:
    """Mean of the last third over the mean of the first, less one: 0.03 is 3 % slower at the end."""

    relative: float
    significant: bool  # larger than the threshold, and than chance explains


def summarize(values: Sequence[float]) -> Summary:
    """Summary of one or more values.

    Percentiles interpolate linearly between the order statistics (numpy's default).

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values to summarize")
    ordered = sorted(values)
    low, high, reason = _interval(ordered)
    return Summary(
        count=len(ordered),
        mean=stdlib.fmean(ordered),
        median=stdlib.median(ordered),
        standard_deviation=stdlib.stdev(ordered) if len(ordered) > 1 else None,
        minimum=ordered[0],
        maximum=ordered[-1],
        p90=percentile(ordered, 0.90),
        p99=percentile(ordered, 0.99),
        ci95_low=low,
        ci95_high=high,
        ci95_reason=reason,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the sorted values lie, interpolated."""
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def drift(values: Sequence[float]) -> Drift | None:
    """Change from the first third of the values to the last; None for fewer than six.

    Significant: the means differ by more than 2 % and Welch's t-test gives p < 0.05.
    """
    if len(values) < LEAST_FOR_DRIFT:
        return None
    third = len(values) // 3
    first, last = values[:third], values[-third:]
    relative = stdlib.fmean(last) / stdlib.fmean(first) - 1
    return Drift(relative, abs(relative) > DRIFT_THRESHOLD and _differ(first, last))


def t_quantile(freedom: int) -> float:
    """Student's t of the two-sided 95 % interval, for so many degrees of freedom."""
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, freedom))


def _interval(values: Sequence[float]) -> tuple[float | None, float | None, str | None]:
    """Student's t interval of the mean: mean ± t(0.975, n - 1) × s ÷ sqrt(n)."""
    if len(values) < 2:
        return None, None, "one value has no spread: measure at least two iterations"
    mean = stdlib.fmean(values)
    half = t_quantile(len(values) - 1) * stdlib.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half, None


def _differ(first: Sequence[float], last: Sequence[float]) -> bool:
    from scipy.stats import ttest_ind

    if stdlib.pstdev(first) == stdlib.pstdev(last) == 0:
        return True  # no scatter at all: any difference is a real one, and t is not defined
    return bool(ttest_ind(first, last, equal_var=False).pvalue < 1 - CONFIDENCE)
