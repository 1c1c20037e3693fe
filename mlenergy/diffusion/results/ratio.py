"""The ratio of two measured means, with its interval. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlenergy.diffusion.measure.statistics import t_quantile
from mlenergy.diffusion.results.repeats import Figure


@dataclass(frozen=True)
class Ratio:
    """A mean over another, with its two-sided 95 % interval; None where that is not known."""

    value: float
    low: float | None
    high: float | None

    @property
    def shows_difference(self) -> bool | None:
        """True where the interval leaves out 1; None where there is no interval."""
        return None if self.low is None or self.high is None else not self.low <= 1 <= self.high

    def times(self, factor: float) -> Ratio:
        """The ratio of the same means, of which one is known to be larger by that factor."""
        low, high = self.low, self.high
        return Ratio(
            self.value * factor,
            None if low is None else low * factor,
            None if high is None else high * factor,
        )

    def inverse(self) -> Ratio:
        """The ratio the other way round."""
        return Ratio(
            1 / self.value,
            None if self.high is None else 1 / self.high,
            None if self.low is None else 1 / self.low,
        )


def ratio_of(other: Figure, base: Figure) -> Ratio:
    """Mean of one figure over the mean of another, both above 0.

    Welch's t interval of the difference of the logarithms: ln(b ÷ a) ± t(0.975, ν) × sqrt(u² + v²), where
    u and v are the standard errors of a and b as shares of them (the variance of a logarithm by the delta
    method) and ν = (u² + v²)² ÷ (u⁴ ÷ ν_a + v⁴ ÷ ν_b) (Welch 1947, "The generalization of 'Student's'
    problem when several different population variances are involved", Biometrika 34; Satterthwaite 1946).
    On the scale of logarithms the interval stays above 0, and turning the ratio round turns it round.
    Each standard error is that of the wider of the figure's two intervals, within or between starts.
    """
    value = other.mean / base.mean
    errors = [(figure.mean, figure.error) for figure in (other, base)]
    shares = [(error[0] / mean, error[1]) for mean, error in errors if error is not None]
    if len(shares) < 2:
        return Ratio(value, None, None)
    variance = sum(share**2 for share, _ in shares)
    if variance == 0:
        return Ratio(value, value, value)
    freedom = variance**2 / sum(share**4 / freedom for share, freedom in shares)
    factor = math.exp(min(t_quantile(freedom) * math.sqrt(variance), 700.0))  # of the largest float
    return Ratio(value, value / factor, value * factor)
