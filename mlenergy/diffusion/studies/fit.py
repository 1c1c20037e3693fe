"""Power laws fitted to measured points: y = a × x^b by least squares of the logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlenergy.diffusion.measure.statistics import t_quantile

_LINE_POINTS = 40


@dataclass(frozen=True)
class PowerLaw:
    """y = factor × x^exponent, with the standard error of the exponent."""

    factor: float
    exponent: float
    error: float | None  # of the exponent; None for two points, which every power law meets
    points: int

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of the exponent, by Student's t with points - 2 degrees of freedom."""
        return None if self.error is None else t_quantile(self.points - 2) * self.error

    def at(self, x: float) -> float:
        """The fitted value."""
        return self.factor * math.pow(x, self.exponent)

    def line(self, low: float, high: float) -> list[tuple[float, float]]:
        """Points of the curve between two x, evenly on the scale of logarithms."""
        steps = [low * (high / low) ** (n / (_LINE_POINTS - 1)) for n in range(_LINE_POINTS)]
        return [(x, self.at(x)) for x in steps]


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw | str:
    """The fit, or the reason why there is none.

    Ordinary least squares of ln y on ln x, each point with equal weight; the standard error of the slope is
    sqrt(Σr² ÷ (n - 2) ÷ Σ(ln x - mean)²), with the residuals r = ln y - ln of the fit.
    """
    if len(set(x)) < 2:
        return f"an exponent needs two or more different points; {len(set(x))} measured"
    if min(*x, *y) <= 0:
        return "a logarithm needs values above 0"
    from scipy.stats import linregress  # a second

    fit = linregress([math.log(one) for one in x], [math.log(one) for one in y])
    error = float(fit.stderr) if len(x) > 2 else None
    return PowerLaw(math.exp(fit.intercept), float(fit.slope), error, len(x))
