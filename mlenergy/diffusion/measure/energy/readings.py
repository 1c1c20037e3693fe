"""Everything that one reader collected on its own node, before it is put in words."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.measure.energy.counters import NodeReader
from mlenergy.diffusion.measure.energy.curves import Curve, counter_curve, counter_period_s, power_curve
from mlenergy.diffusion.measure.energy.sampler import Track
from mlenergy.diffusion.measure.samples import GpuEnergy

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class WindowReport:
    """One window on one reader."""

    gpus: tuple[GpuEnergy, ...]
    failure: str | None  # why a GPU's energy is unknown; gpus is then empty
    marks: tuple[str, ...]
    cpu_j: float | None
    dram_j: float | None
    cpu_reason: str | None


class GpuReadings:
    """One GPU's samples, and what follows from them (worked out once: a long run has many)."""

    def __init__(self, gpu: Gpu, track: Track, has_counter: bool) -> None:
        self.gpu = gpu
        self.track = track
        self.has_counter = has_counter  # the driver counts this GPU's energy

    @cached_property
    def period_s(self) -> float | None:
        """The counter's own period, None where it has none or too few moves tell it."""
        return counter_period_s(self.track.counter) if self.has_counter else None

    @cached_property
    def power(self) -> Curve | None:
        """Integral of the sampled power."""
        return power_curve(self.track.samples)

    @cached_property
    def energy(self) -> Curve | None:
        """How the GPU's energy grew: by its counter, else by its power."""
        return counter_curve(self.track.counter) if self.has_counter else self.power

    def sampled_j(self, begin_s: float, end_s: float) -> float | None:
        """Integral of the sampled power between two moments, None where no samples cover them."""
        if self.power is None or not self.power.covers(begin_s, end_s):
            return None
        return self.power.between(begin_s, end_s)

    def within(self, begin_s: float, end_s: float) -> Track:
        """The part of the track between two moments."""
        return Track(
            counter=_cut(self.track.counter, begin_s, end_s, key=lambda read: read.read_s),
            samples=_cut(self.track.samples, begin_s, end_s, key=lambda sample: sample.time_s),
            failures=[failure for failure in self.track.failures if begin_s <= failure[0] <= end_s],
        )


@dataclass(frozen=True)
class Readings:
    """The counters' windows and the sampling child's tracks of one reader."""

    node: str
    reader: NodeReader
    gpus: tuple[GpuReadings, ...]
    sample_period_s: float
    trouble: str | None  # why there are no tracks


def readings_of(
    node: str, reader: NodeReader, tracks: Mapping[int, Track], sample_period_s: float, trouble: str | None
) -> Readings:
    """A reader's windows with its child's tracks (by the driver's index)."""
    gpus = tuple(
        GpuReadings(gpu, tracks.get(gpu.index, Track()), gpu in reader.counted) for gpu in reader.gpus
    )
    return Readings(node, reader, gpus, sample_period_s, trouble)


def _cut(rows: list[_Row], begin_s: float, end_s: float, key: Callable[[_Row], float]) -> list[_Row]:
    """Rows, in order of time, between two moments."""
    return rows[bisect_left(rows, begin_s, key=key) : bisect_right(rows, end_s, key=key)]
