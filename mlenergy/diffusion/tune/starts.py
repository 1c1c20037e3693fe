"""One start of one candidate: its figures, read from the result folder that it left."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlenergy.diffusion.tune.intervals import Start

EnergyOf = Literal["gpu", "cpu_packages"]


@dataclass(frozen=True)
class Measured:
    """What one start gave."""

    folder: str
    iterations: int
    seconds: Start  # per image
    joules: Start | None  # per image
    energy_of: EnergyOf | None
    energy_reason: str | None  # why there are no joules
    measured_s: float  # all windows together
    wall_s: float | None  # of the whole start, with loading; None: not recorded
    peak_memory_bytes: int | None  # of the fullest rank
    peak_memory_reason: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """A start that gave nothing."""

    message: str
    wall_s: float | None


def read_start(folder: Path, wall_s: float | None) -> Measured:
    """Read a complete result.

    The GPUs' joules; in a run without GPUs those of the CPUs' packages, where they can be read.
    """
    result = json.loads((folder / "results.json").read_bytes())
    joules, energy_of, reason = _energy(result)
    memory = result["memory"]
    return Measured(
        folder=str(folder),
        iterations=len(result["iterations"]),
        seconds=_start(result["statistics"]["time_per_image_s"]),
        joules=joules,
        energy_of=energy_of,
        energy_reason=reason,
        measured_s=result["generation_time"],
        wall_s=wall_s,
        peak_memory_bytes=memory["peak_memory_bytes"],
        peak_memory_reason=memory["reason"],
        warnings=tuple(warning["message"] for warning in result["warnings"]),
    )


def _energy(result: Mapping[str, Any]) -> tuple[Start | None, EnergyOf | None, str | None]:
    """Joules per image, whose they are, or why they are not known. No joules at all are not known either."""
    of_gpus, plan = result["statistics"]["energy_per_image_j"], result["configuration"]
    # Where GPUs take part, the processors' joules are no measure of an image.
    without_gpus = plan["device"] == "cpu" and not plan["energy_gpus"]
    joules = _package_joules(result) if without_gpus else None if of_gpus is None else _start(of_gpus)
    if joules is None:
        return None, None, str(result["energy_measurement"]["reason"])
    if joules.mean <= 0:
        return None, None, "the energy counter did not move: its period is longer than the windows"
    return joules, "cpu_packages" if without_gpus else "gpu", None


def _start(summary: Mapping[str, Any]) -> Start:
    return Start(summary["count"], summary["mean"], summary["standard_deviation"])


def _package_joules(result: Mapping[str, Any]) -> Start | None:
    per_image = [
        None if one["cpu_package_j"] is None else one["cpu_package_j"] / one["images"]
        for one in result["iterations"]
    ]
    known = [value for value in per_image if value is not None]
    if not known or len(known) < len(per_image):
        return None
    return Start(len(known), statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)
