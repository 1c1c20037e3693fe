"""Forecasts of candidates: what decides the order of measuring, and how far off they were."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mlenergy.diffusion.config.attention import ATTENTION
from mlenergy.diffusion.config.optimizations import OPTIMIZATIONS
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.predict import Forecast, Interval, forecast_of
from mlenergy.diffusion.measure import starts

_LEAST_RANKED = 3  # two ranks agree or they do not, which says nothing


@dataclass(frozen=True)
class Expected:
    """Figures of an image that are forecast for some settings run eagerly, with the engine's own attention.

    Attributes:
        differs: what the settings have that no forecast knows; empty where it is one of them.
        forecast: of an iteration, with what it is based on.
    """

    seconds: Interval
    joules: Interval | None
    differs: tuple[str, ...]
    forecast: Forecast


def expected_of(plan: Plan) -> Expected | str:
    """The forecast of a plan for the GPU that it was made for, or the reason why there is none.

    Compilation, the attention kernel and the power limit are left out of it: they are searched, and plans
    that differ in them alone have one forecast.
    """
    if plan.device != "cuda":
        return f"forecasts are of GPUs, and this is {plan.device_name}"
    exact: dict[str, Any] = {name: False for name, record in OPTIMIZATIONS.items() if record.is_searched}
    plain = replace(plan.optimizations, compile_mode=None, attention="auto", **exact)
    try:
        found = forecast_of(replace(plan, optimizations=plain), plan.device_name)
    except UserError as error:
        return str(error)
    of_image = Interval(*(value / plan.batch_size for value in asdict(found.duration_s).values()))
    return Expected(of_image, found.energy_per_output_j, tuple(_differs(plan)), found)


def _differs(plan: Plan) -> Iterable[str]:
    optimizations = plan.optimizations
    if optimizations.compile_mode is not None:
        yield f"compilation ({optimizations.compile_mode})"
    for record in optimizations.in_use.values():
        if record.is_searched:
            yield record.option
    if optimizations.attention != "auto" and not ATTENTION[optimizations.attention].is_searched:
        yield f"{optimizations.attention} attention"
    if plan.power_limit_w is not None:
        yield f"a limit of {plan.power_limit_w:g} W"


def places_of(expected: Sequence[Expected | None]) -> list[int]:
    """The place of each in the order of measuring, from 0; several may share one.

    It is the better one of two ranks, by seconds and by joules: what is forecast to be the fastest and what
    is forecast to take the least energy go first, and what is bad at both goes last. Those without a
    forecast follow, in the order given.
    """
    known = [one for one in expected if one is not None]
    by_seconds = sorted(one.seconds.value for one in known)
    by_joules = sorted(one.joules.value for one in known if one.joules is not None)
    places, unknown = [], len(known)
    for one in expected:
        if one is None:
            places.append(unknown)
            unknown += 1
            continue
        ranks = [by_seconds.index(one.seconds.value)]
        ranks += [by_joules.index(one.joules.value)] if one.joules is not None else []
        places.append(min(ranks))
    return places


@dataclass(frozen=True)
class Compared:
    """A measured candidate with its forecast."""

    expected: Expected
    seconds: starts.Interval
    joules: starts.Interval | None  # of the GPUs

    @property
    def seconds_ratio(self) -> float:
        """Measured ÷ forecast."""
        return self.seconds.mean / self.expected.seconds.value

    @property
    def joules_ratio(self) -> float | None:
        """Measured ÷ forecast; None where one of both is not known."""
        if self.joules is None or self.expected.joules is None:
            return None
        return self.joules.mean / self.expected.joules.value


def errors_of(compared: Sequence[Compared]) -> dict[str, Any]:
    """How far off the forecasts were, over the candidates whose settings they know.

    Returns:
        Seconds and joules, each None where no candidate has both figures, else: count, median_ratio,
        least_ratio and most_ratio (measured ÷ forecast), within (how many lie in the 90 % interval),
        rank_correlation (Spearman's, of all candidates in order) and the reason where it is None.
    """
    own = [one for one in compared if not one.expected.differs]
    seconds = [(one.seconds.mean, one.expected.seconds) for one in own]
    joules = [
        (one.joules.mean, one.expected.joules)
        for one in own
        if one.joules is not None and one.expected.joules is not None
    ]
    return {"seconds": _errors(seconds), "joules": _errors(joules)}


def _errors(pairs: Sequence[tuple[float, Interval]]) -> Mapping[str, Any] | None:
    if not pairs:
        return None
    ratios = [measured / forecast.value for measured, forecast in pairs]
    correlation = _rank_correlation([m for m, _ in pairs], [f.value for _, f in pairs])
    return {
        "count": len(pairs),
        "median_ratio": statistics.median(ratios),
        "least_ratio": min(ratios),
        "most_ratio": max(ratios),
        "within": sum(forecast.low <= measured <= forecast.high for measured, forecast in pairs),
        "rank_correlation": None if isinstance(correlation, str) else correlation,
        "rank_correlation_reason": correlation if isinstance(correlation, str) else None,
    }


def _rank_correlation(measured: Sequence[float], forecast: Sequence[float]) -> float | str:
    """Spearman's, ties having the mean of their ranks; or the reason why there is none."""
    if len(measured) < _LEAST_RANKED:
        return f"fewer than {_LEAST_RANKED} candidates have both figures"
    if len(set(measured)) == 1 or len(set(forecast)) == 1:
        return "all have one figure"
    from scipy.stats import spearmanr  # a second

    return float(spearmanr(measured, forecast).statistic)
