"""Forecasts of a plan and of other ways to share its work, as text and as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.cost.size import ShareOut
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.predict import Forecast, Interval, forecast_of, read_fitted
from mlenergy.diffusion.forecast.published import Published, nearest_published
from mlenergy.diffusion.models.spec import EngineName
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.results.units import Unit, unit_made


class Forecasts:
    """Forecasts of one plan on one GPU, and of ways to share its work; nothing at all without a GPU."""

    def __init__(self, plan: Plan, gpu: str | None, calibration: Path | None = None) -> None:
        """Read the constants.

        Raises:
            UserError: the file of constants cannot be read.
        """
        self.plan = plan
        self.gpu = gpu
        self._fitted = None if gpu is None else read_fitted(calibration)
        self._of = cache(self._forecast)

    @property
    def headings(self) -> tuple[str, ...]:
        """Of the columns that `cells` fills."""
        return () if self.gpu is None else ("s", "90 % interval", f"J/{self.plan.spec.family.output}")

    def cells(self, way: ShareOut) -> tuple[str, ...]:
        """Seconds with interval, and joules, of a way to share the work."""
        if self.gpu is None:
            return ()
        found = self._of(way.engine, way.parallel)
        if isinstance(found, str):
            return "-", "-", "-"
        joules = found.energy_per_output_j
        return (
            number(found.duration_s.value),
            _range(found.duration_s),
            "-" if joules is None else number(joules.value),
        )

    def ordered(self, ways: Iterable[ShareOut]) -> list[ShareOut]:
        """Fastest first, then those without a forecast, and last those that do not fit."""
        if self.gpu is None:
            return list(ways)
        return sorted(ways, key=self._rank)

    def lines(self) -> list[tuple[str, str]]:
        """The plan's own forecast, in labelled lines."""
        if self.gpu is None:
            return []
        found = self._of(self.plan.engine, self.plan.parallel)
        if isinstance(found, str):
            return [("forecast", f"none: {found}")]
        seconds, joules = found.duration_s, found.energy_per_output_j
        unit = unit_made(self.plan.spec.family.output)
        outputs = unit.counted(self.plan.batch_size)
        text = f"{number(seconds.value)} s for {outputs} on {found.gpu} ({_range(seconds)})"
        energy = (
            f"{number(joules.value)} J per {unit.name} ({_range(joules)})"
            if joules is not None
            else f"joules unknown: {found.energy_reason}"
        )
        lines = [("forecast", f"{text}, {energy}; nine of ten runs lie within")]
        lines += [("", reason) for reason in found.extrapolated]
        published = nearest_published(self.plan, found.gpu)
        if published is not None:
            lines.append(("published", _published_text(published, unit)))
        return lines

    def as_dict(self, way: ShareOut | None = None) -> dict[str, Any]:
        """Forecast of the plan or of a way, and the reason where there is none; empty without a GPU."""
        if self.gpu is None:
            return {}
        engine, parallel = (
            (self.plan.engine, self.plan.parallel) if way is None else (way.engine, way.parallel)
        )
        found = self._of(engine, parallel)
        if isinstance(found, str):
            return {"forecast": None, "forecast_reason": found}
        return {"forecast": found.as_dict(), "forecast_reason": None}

    def _forecast(self, engine: EngineName, parallel: Parallelism) -> Forecast | str:
        assert self.gpu is not None
        try:
            return forecast_of(replace(self.plan, engine=engine, parallel=parallel), self.gpu, self._fitted)
        except UserError as error:
            return str(error)

    def _rank(self, way: ShareOut) -> tuple[bool, bool, float]:
        found = self._of(way.engine, way.parallel)
        seconds = float("inf") if isinstance(found, str) else found.duration_s.value
        return way.memory.fits is False, way.approximate, seconds


def _range(interval: Interval) -> str:
    return f"{number(interval.low)} to {number(interval.high)}"


def _published_text(run: Published, unit: Unit) -> str:
    differs = f" ({', '.join(run.differs)})" if run.differs else ""
    joules = f"{number(run.energy_per_output_j)} J per {unit.name}"
    return f"{number(run.duration_s)} s, {joules}{differs}: {run.source}"
