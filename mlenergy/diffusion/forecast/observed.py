"""A run whose seconds and joules are known, as the fit takes it."""

from __future__ import annotations

from dataclasses import dataclass

from mlenergy.diffusion.forecast.formula import Card
from mlenergy.diffusion.forecast.work import IterationWork


@dataclass(frozen=True)
class Observed:
    """A run whose seconds and joules are known."""

    model: str
    card: Card
    work: IterationWork
    duration_s: float  # of an iteration
    energy_j: float | None  # of an iteration, all GPUs
