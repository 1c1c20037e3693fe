"""Mean, spread and confidence interval of figures; no torch, scipy only where an interval is asked for."""

from __future__ import annotations

import math
import statistics as stdlib
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

CONFIDENCE = 0.95
DRIFT_THRESHOLD = 0.02  # a mean that moves by more between first and last third is no steady state
LEAST_FOR_DRIFT = 6  # two iterations a third; the spread of one alone is unknown
# Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (ASQC, 1993): a value is an outlier where its
# modified z-score, 0.6745 × (value - median) ÷ MAD, is beyond 3.5; NIST's handbook (1.3.5.17) names both.
OUTLIER_SCORE = 3.5
MAD_TO_SIGMA = 0.6745  # the MAD of a normal distribution, in standard deviations
OUTLIER_SHARE = 0.05  # nearer to the median than this share of it, a value changes no conclusion
LEAST_FOR_OUTLIERS = 4  # of three values one is always the odd one out


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
class Outlier:
    """A value that is far from all others."""

    index: int  # of the value, from 0
    value: float
    ratio: float  # to the median of all values: 22 is twenty-two times as long


@dataclass(frozen=True)
class Drift:
    """Mean of the last third over the mean of the first, less one: 0.03 is 3 % slower at the end.

    Outliers are left out, unless a third holds nothing else.
    """

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


def outliers(values: Sequence[float]) -> tuple[Outlier, ...]:
    """Values that the others do not explain, by their median and MAD (median absolute deviation); in order.

    An outlier's modified z-score is beyond 3.5 (see `OUTLIER_SCORE`), and it is further than 5 % from the
    median: a clock that repeats itself to the microsecond makes any other microsecond improbable. Both are
    robust: unlike mean and standard deviation they hardly move with the outlier itself. Fewer than four
    values have none.
    """
    if len(values) < LEAST_FOR_OUTLIERS:
        return ()
    median = stdlib.median(values)
    spread = stdlib.median(abs(value - median) for value in values)
    return tuple(
        Outlier(index, value, value / median)
        for index, value in enumerate(values)
        if MAD_TO_SIGMA * abs(value - median) > OUTLIER_SCORE * spread
        and abs(value - median) > OUTLIER_SHARE * median
    )


def drift(values: Sequence[float]) -> Drift | None:
    """Change from the first third of the values to the last; None for fewer than six.

    Significant: the means differ by more than 2 % and Welch's t-test gives p < 0.05. A single outlier is
    no drift and hides none: it is left out of its third. Where a whole third lies apart, that is the drift.
    """
    if len(values) < LEAST_FOR_DRIFT:
        return None
    third, odd = len(values) // 3, {outlier.index for outlier in outliers(values)}
    first = _without(values, odd, range(third))
    last = _without(values, odd, range(len(values) - third, len(values)))
    relative = stdlib.fmean(last) / stdlib.fmean(first) - 1
    return Drift(relative, abs(relative) > DRIFT_THRESHOLD and _differ(first, last))


def t_quantile(freedom: float) -> float:
    """Student's t of the two-sided 95 % interval, for that many degrees of freedom."""
    from scipy.special import stdtrit  # scipy.stats calls it too, and takes a second to import

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def _interval(values: Sequence[float]) -> tuple[float | None, float | None, str | None]:
    """Student's t interval of the mean: mean ± t(0.975, n - 1) × s ÷ sqrt(n)."""
    if len(values) < 2:
        return None, None, "one value has no spread: measure at least two iterations"
    mean = stdlib.fmean(values)
    half = t_quantile(len(values) - 1) * stdlib.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half, None


def _without(values: Sequence[float], odd: AbstractSet[int], places: Iterable[int]) -> list[float]:
    """The values of some places less the odd ones; all of them where nothing else would be left."""
    kept = [index for index in places if index not in odd]
    return [values[index] for index in kept or places]


def _differ(first: Sequence[float], last: Sequence[float]) -> bool:
    from scipy.stats import ttest_ind

    if min(len(first), len(last)) < 2:
        return False  # an outlier left one value of a third, whose spread is unknown
    if stdlib.pstdev(first) == stdlib.pstdev(last) == 0:
        return True  # no scatter at all: any difference is a real one, and t is not defined
    return bool(ttest_ind(first, last, equal_var=False).pvalue < 1 - CONFIDENCE)
