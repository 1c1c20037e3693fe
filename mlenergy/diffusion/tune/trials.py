"""Trials of each candidate: its starts, read from the result folders that they left, and its intervals."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlenergy.diffusion.measure.starts import Interval, StartSummary, interval_of
from mlenergy.diffusion.results.units import unit_of
from mlenergy.diffusion.tune.pareto import Point, Spreads, spreads_of
from mlenergy.diffusion.tune.space import Candidate

EnergyOf = Literal["gpu", "cpu_packages"]


@dataclass(frozen=True)
class Measured:
    """Figures of one start."""

    folder: str
    iterations: int
    seconds: StartSummary  # per image or video
    joules: StartSummary | None  # per image or video
    energy_of: EnergyOf | None
    energy_reason: str | None  # the reason why there are no joules
    measured_s: float  # all windows together
    wall_s: float | None  # of the whole start, with loading; None: not recorded
    peak_memory_bytes: int | None  # of the fullest rank
    peak_memory_reason: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """A start without a result."""

    message: str
    wall_s: float | None


@dataclass
class Trial:
    """A candidate with its starts so far, or with the failure that ended them."""

    candidate: Candidate
    starts: list[Measured] = field(default_factory=list)
    failure: Failed | None = None

    @property
    def is_new(self) -> bool:
        """True where it was never started."""
        return not self.starts and self.failure is None


@dataclass(frozen=True)
class Objectives:
    """The figures that are compared, the same for all candidates."""

    energy_of: EnergyOf | None  # whose joules; None: seconds alone count
    reason: str | None  # the reason why seconds alone count
    seconds_spreads: Spreads
    joules_spreads: Spreads

    def values(self, trial: Trial) -> tuple[Interval, ...] | None:
        """A measured candidate's interval in each objective; None where one is not known."""
        if not trial.starts:
            return None
        seconds = self.seconds(trial)
        if self.energy_of is None:
            return (seconds,)
        joules = self.joules(trial)
        return None if joules is None else (seconds, joules)

    def seconds(self, trial: Trial) -> Interval:
        """Seconds per image or video."""
        spread = self.seconds_spreads.of(trial.candidate.number)
        return interval_of([start.seconds for start in trial.starts], spread)

    def joules(self, trial: Trial) -> Interval | None:
        """Joules per image or video; None where a start has none."""
        known = _joules_of(trial, self.energy_of)
        if len(known) < len(trial.starts):
            return None
        return interval_of(known, self.joules_spreads.of(trial.candidate.number))


def objectives_of(trials: Sequence[Trial]) -> Objectives:
    """Seconds and joules where any candidate has joules, else seconds alone."""
    starts = [start for trial in trials for start in trial.starts]
    kinds = {start.energy_of for start in starts}
    known: tuple[EnergyOf, ...] = ("gpu", "cpu_packages")
    energy_of = next((kind for kind in known if kind in kinds), None)
    reasons = [start.energy_reason for start in starts if start.energy_reason is not None]
    return Objectives(
        energy_of=energy_of,
        reason=reasons[0] if energy_of is None and reasons else None,
        seconds_spreads=spreads_of(
            {trial.candidate.number: [start.seconds for start in trial.starts] for trial in trials}
        ),
        joules_spreads=spreads_of({trial.candidate.number: _joules_of(trial, energy_of) for trial in trials}),
    )


def points_of(trials: Sequence[Trial], objectives: Objectives) -> list[Point]:
    """All candidates that can be compared."""
    values = {trial.candidate.number: objectives.values(trial) for trial in trials}
    return [Point(number, known) for number, known in values.items() if known is not None]


def read_start(folder: Path, wall_s: float | None) -> Measured:
    """Read a complete result.

    Joules are those of the GPUs; in a run without GPUs those of the CPU packages, where they can be read.
    """
    result = json.loads((folder / "results.json").read_bytes())
    joules, energy_of, reason = _energy(result)
    memory = result["memory"]
    return Measured(
        folder=str(folder),
        iterations=len(result["iterations"]),
        seconds=_summary(result["statistics"][unit_of(result).time]),
        joules=joules,
        energy_of=energy_of,
        energy_reason=reason,
        measured_s=result["generation_time"],
        wall_s=wall_s,
        peak_memory_bytes=memory["peak_memory_bytes"],
        peak_memory_reason=memory["reason"],
        warnings=tuple(warning["message"] for warning in result["warnings"]),
    )


def _joules_of(trial: Trial, energy_of: EnergyOf | None) -> list[StartSummary]:
    """Joules of the starts that have them from the compared source."""
    return [
        start.joules for start in trial.starts if start.joules is not None and start.energy_of == energy_of
    ]


def _energy(result: Mapping[str, Any]) -> tuple[StartSummary | None, EnergyOf | None, str | None]:
    """Joules per output and their source, or the reason why they are not known; 0 J counts as not known."""
    of_gpus, plan = result["statistics"][unit_of(result).energy], result["configuration"]
    # Where GPUs take part, the processors' joules are no measure of an image.
    without_gpus = plan["device"] == "cpu" and not plan["energy_gpus"]
    joules = _package_joules(result) if without_gpus else None if of_gpus is None else _summary(of_gpus)
    if joules is None:
        return None, None, str(result["energy_measurement"]["reason"])
    if joules.mean <= 0:
        return None, None, "the energy counter did not move: its period is longer than the windows"
    return joules, "cpu_packages" if without_gpus else "gpu", None


def _summary(statistics_section: Mapping[str, Any]) -> StartSummary:
    return StartSummary(
        statistics_section["count"], statistics_section["mean"], statistics_section["standard_deviation"]
    )


def _package_joules(result: Mapping[str, Any]) -> StartSummary | None:
    count = unit_of(result).count
    each = [
        None if one["cpu_package_j"] is None else one["cpu_package_j"] / one[count]
        for one in result["iterations"]
    ]
    known = [value for value in each if value is not None]
    if not known or len(known) < len(each):
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return StartSummary(len(known), statistics.fmean(known), deviation)
