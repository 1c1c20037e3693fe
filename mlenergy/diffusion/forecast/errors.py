"""How wrong forecasts are: of runs, of whole models and of GPUs that the fit has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from mlenergy.diffusion.forecast.fitting import Fit, fit
from mlenergy.diffusion.forecast.formula import OF_VIDEOS, Kind
from mlenergy.diffusion.forecast.observed import Observed
from mlenergy.diffusion.forecast.transfer import scaled

FOLDS = 5


@dataclass(frozen=True)
class Miss:
    """A run that the fit had not seen: logarithms of forecast ÷ measured."""

    kind: Kind
    row: Observed
    seconds: float
    joules: float | None


def misses(rows: Sequence[Observed], seed: int = 0) -> list[Miss]:
    """Forecasts of every row by a fit without it, without its model, and without its GPU.

    Left out are a fifth of the rows at a time, drawn by `seed`; one model at a time; and one GPU at a time,
    whose constants are then those of another by the data sheets.
    """
    return [*_without_runs(rows, seed), *_without_models(rows), *_without_gpus(rows)]


def _without_runs(rows: Sequence[Observed], seed: int) -> Iterator[Miss]:
    fold = np.random.default_rng(seed).permutation(len(rows)) % FOLDS
    for out in range(FOLDS):
        fitted = fit([row for row, own in zip(rows, fold, strict=True) if own != out])
        for row, own in zip(rows, fold, strict=True):
            if own == out:
                yield _miss("runs", fitted, row)


def _without_models(rows: Sequence[Observed]) -> Iterator[Miss]:
    for model in sorted({row.model for row in rows}):
        others = [row for row in rows if row.model != model]
        if others:
            fitted = fit(others)
            yield from (_miss("models", fitted, row) for row in rows if row.model == model)


def _without_gpus(rows: Sequence[Observed]) -> Iterator[Miss]:
    cards = {row.card.name: row.card for row in rows}
    for name, card in sorted(cards.items()):
        others = [row for row in rows if row.card.name != name]
        if others:
            fitted = fit(others)
            source = cards[others[0].card.name]
            moved = Fit(
                {name: scaled(fitted.time[source.name], source, card)},
                {name: scaled(fitted.power[source.name], source, card)} if fitted.power else {},
                fitted.models,
            )
            yield from (_miss("gpus", moved, row) for row in rows if row.card.name == name)


def _miss(kind: Kind, fitted: Fit, row: Observed) -> Miss:
    kind = OF_VIDEOS[kind] if row.work.video_pixels else kind
    seconds = float(np.log(fitted.duration_s(row) / row.duration_s))
    if row.energy_j is None:
        return Miss(kind, row, seconds, None)
    return Miss(kind, row, seconds, float(np.log(fitted.energy_j(row) / row.energy_j)))


def summary(found: Sequence[Miss]) -> dict[str, Any]:
    """Errors by kind and quantity, as shares; low and high hold measured ÷ forecast of 90 % of the rows.

    Returns:
        kind -> seconds or joules -> rows, median_error, p90_error, low, high; kinds without rows are absent.
    """
    table: dict[str, Any] = {}
    for kind in get_args(Kind):
        own = [miss for miss in found if miss.kind == kind]
        values = {
            "seconds": [miss.seconds for miss in own],
            "joules": [miss.joules for miss in own if miss.joules is not None],
        }
        if own:
            table[kind] = {name: _errors(logs) for name, logs in values.items() if logs}
    return table


def _errors(logs: Sequence[float]) -> dict[str, float]:
    sizes = np.abs(np.expm1(logs))
    low, high = np.exp(np.quantile(-np.asarray(logs), [0.05, 0.95]))
    return {
        "rows": len(logs),
        "median_error": float(np.median(sizes)),
        "p90_error": float(np.quantile(sizes, 0.9)),
        "low": float(low),
        "high": float(high),
    }
