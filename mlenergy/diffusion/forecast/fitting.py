"""The formula's constants fitted to measured runs, and the errors of forecasts of runs left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from mlenergy.diffusion.cost.kernel_work import KernelWork
from mlenergy.diffusion.forecast.formula import POWER, TIME, Card, Constant, power_of, times_of
from mlenergy.diffusion.forecast.observed import Observed
from mlenergy.diffusion.forecast.work import IterationWork

Array = np.ndarray[Any, np.dtype[np.float64]]

_NOISE = 0.06  # expected error of a row, as a share: what a prior weighs against
_MODEL_SPREAD = 0.1  # of the factors of models


@dataclass(frozen=True)
class Fit:
    """Fitted constants: for each GPU those of time and of power, and each model's factor."""

    time: Mapping[str, Mapping[str, float]]
    power: Mapping[str, Mapping[str, float]]
    models: Mapping[str, float]

    def duration_s(self, row: Observed, known_model: bool = True) -> float:
        """Forecast seconds of one iteration."""
        factor = self.models.get(row.model, 1.0) if known_model else 1.0
        return float(times_of(row.work, row.card, self.time[row.card.name], factor).duration_s)

    def energy_j(self, row: Observed, known_model: bool = True) -> float:
        """Forecast joules of one iteration, all GPUs."""
        factor = self.models.get(row.model, 1.0) if known_model else 1.0
        times = times_of(row.work, row.card, self.time[row.card.name], factor)
        watts = power_of(times, row.card, self.power[row.card.name])
        return float(row.work.gpus * watts * times.duration_s)


def fit(rows: Sequence[Observed]) -> Fit:
    """Constants that the rows make most likely: robust least squares of relative errors, with priors.

    The factors of models are shared by all GPUs; everything else is fitted for each GPU.
    """
    gpus, models = sorted({row.card.name for row in rows}), sorted({row.model for row in rows})
    seconds, factors = _fit_time(rows, gpus, models)
    with_energy = [row for row in rows if row.energy_j is not None]
    watts = _fit_power(with_energy, gpus, seconds, factors) if with_energy else {}
    return Fit(seconds, watts, factors)


def _fit_time(
    rows: Sequence[Observed], gpus: list[str], models: list[str]
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    work, card = _stacked([row.work for row in rows]), _cards(rows)
    gpu = np.array([gpus.index(row.card.name) for row in rows])
    model = np.array([models.index(row.model) for row in rows])
    measured = np.log([row.duration_s for row in rows])
    size = len(TIME) * len(gpus)

    def residuals(point: Array) -> Array:
        constants = _constants(point[:size], TIME, gpu, len(gpus))
        seconds = times_of(work, card, constants, np.exp(point[size:])[model]).duration_s
        return np.asarray(np.log(seconds) - measured)

    free = Constant("1", "", 1, _MODEL_SPREAD, 0.3, 3)
    point = _solve([*TIME.values()] * len(gpus) + [free] * len(models), residuals)
    factors = {name: float(value) for name, value in zip(models, np.exp(point[size:]), strict=True)}
    return _named(point[:size], TIME, gpus), factors


def _fit_power(
    rows: Sequence[Observed],
    gpus: list[str],
    seconds: Mapping[str, Mapping[str, float]],
    factors: Mapping[str, float],
) -> dict[str, dict[str, float]]:
    """Power against measured time, so that an error of time is not made up for by power."""
    found = {}
    for name in gpus:
        own = [row for row in rows if row.card.name == name]
        if not own:
            continue
        factor = np.array([factors[row.model] for row in own])
        times = times_of(_stacked([row.work for row in own]), own[0].card, seconds[name], factor)
        ranks = np.array([row.work.gpus for row in own])
        measured = np.log(
            [row.energy_j / row.duration_s for row in own if row.energy_j is not None]
        ) - np.log(ranks)

        def residuals(
            point: Array, times: Any = times, card: Card = own[0].card, measured: Array = measured
        ) -> Array:
            constants = dict(zip(POWER, np.exp(point), strict=True))
            return np.asarray(np.log(power_of(times, card, constants)) - measured)

        found.update(_named(_solve([*POWER.values()], residuals), POWER, [name]))
    return found


def _solve(constants: Sequence[Constant], residuals: Any) -> Array:
    expected = np.log([constant.expected for constant in constants])
    spread = np.array([constant.spread for constant in constants])
    least = np.log([constant.least for constant in constants])
    most = np.log([constant.most for constant in constants])

    def weighed(point: Array) -> Array:
        return np.concatenate([residuals(point) / _NOISE, (point - expected) / spread])

    return np.asarray(least_squares(weighed, expected, loss="soft_l1", bounds=(least, most)).x)


def _constants(point: Array, table: Mapping[str, Constant], gpu: Array, gpus: int) -> dict[str, Array]:
    values = np.exp(point).reshape(gpus, len(table))
    return {name: values[gpu, column] for column, name in enumerate(table)}


def _named(point: Array, table: Mapping[str, Constant], gpus: Sequence[str]) -> dict[str, dict[str, float]]:
    values = np.exp(point).reshape(len(gpus), len(table))
    return {
        gpu: {name: float(value) for name, value in zip(table, row, strict=True)}
        for gpu, row in zip(gpus, values, strict=True)
    }


def _stacked(works: Sequence[IterationWork]) -> SimpleNamespace:
    """Arrays under the names of the fields."""
    plain = [field.name for field in fields(IterationWork) if field.name not in ("text", "step", "decode")]
    columns: dict[str, Any] = {
        name: np.array([getattr(work, name) for work in works], dtype=float) for name in plain
    }
    for part in ("text", "step", "decode"):
        kernels = [getattr(work, part) for work in works]
        names = [field.name for field in fields(KernelWork)]
        columns[part] = SimpleNamespace(
            **{name: np.array([getattr(one, name) for one in kernels], dtype=float) for name in names}
        )
    return SimpleNamespace(**columns)


def _cards(rows: Sequence[Observed]) -> Card:
    return Card(
        "",
        np.array([row.card.flops_per_s for row in rows]),
        np.array([row.card.bytes_per_s for row in rows]),
        np.array([row.card.exponentials_per_s for row in rows]),
        np.array([row.card.power_w for row in rows]),
    )
