"""Samples of a GPU over time, and the energy between two moments that follows from them."""

from __future__ import annotations

import itertools
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class CounterRead:
    """A move of the energy counter: the last read of the old figure and the first of the new one."""

    before_s: float
    read_s: float
    energy_j: float


@dataclass(frozen=True)
class Sample:
    """One GPU at one moment; None where the driver gives no such figure."""

    time_s: float
    power_w: float | None
    temperature_c: int | None
    sm_clock_mhz: int | None
    event_reasons: int | None  # NVML's bit mask


@dataclass(frozen=True)
class Curve:
    """Energy that was used up to each moment, linear in between.

    times_s: rising, of the machine's monotonic clock. energy_j: the same length.
    """

    times_s: tuple[float, ...]
    energy_j: tuple[float, ...]

    def between(self, begin_s: float, end_s: float) -> float:
        """Joules from one moment to another; beyond its ends the curve goes on as at its ends."""
        return self._at(end_s) - self._at(begin_s)

    def covers(self, begin_s: float, end_s: float) -> bool:
        """True where both moments lie within the curve."""
        return len(self.times_s) > 1 and self.times_s[0] <= begin_s and end_s <= self.times_s[-1]

    def _at(self, time_s: float) -> float:
        right = min(max(bisect_right(self.times_s, time_s), 1), len(self.times_s) - 1)
        before, after = self.times_s[right - 1], self.times_s[right]
        power_w = (self.energy_j[right] - self.energy_j[right - 1]) / (after - before)
        return self.energy_j[right - 1] + (time_s - before) * power_w


@dataclass
class Track:
    """All that the sampling process read of one GPU, in order of time.

    The curves are worked out once: a long run has many samples.
    """

    counter: list[CounterRead] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    failures: list[tuple[float, int, str]] = field(default_factory=list)  # time, NVML code, what was read

    @cached_property
    def power_curve(self) -> Curve | None:
        """Integral of the sampled power; None for fewer than two samples of it.

        Each sample is held until the next. A trapezoid would put half of each step's power before
        the moment at which it was read; held, constant power is exact and a step is late by at most
        one period, up as well as down.
        """
        known = [(sample.time_s, sample.power_w) for sample in self.samples if sample.power_w is not None]
        if len(known) < 2:
            return None
        total_j, energy_j = 0.0, [0.0]
        for (time_s, power_w), (next_s, _) in itertools.pairwise(known):
            total_j += power_w * (next_s - time_s)
            energy_j.append(total_j)
        return Curve(tuple(time_s for time_s, _ in known), tuple(energy_j))

    @cached_property
    def counter_curve(self) -> Curve | None:
        """The counter at the moments at which it moved; None for fewer than two known moves."""
        moves = self.counter[1:]  # the first read of all shows a figure, not when it came to be
        if len(moves) < 2:
            return None
        polled_s = statistics.median(move.read_s - move.before_s for move in moves)
        # A counter that moves with every read has no period to find: its moment is that of the read.
        # A slower one moved somewhere between the last read of the old figure and the first of the new.
        moves_with_every_read = _median_gap_s(moves) < 1.5 * polled_s
        times_s = (m.read_s if moves_with_every_read else (m.before_s + m.read_s) / 2 for m in moves)
        return Curve(tuple(times_s), tuple(move.energy_j for move in moves))

    @cached_property
    def counter_period_s(self) -> float | None:
        """Median time between two moves of the counter; None for fewer than three known moves."""
        moves = self.counter[1:]
        return None if len(moves) < 3 else _median_gap_s(moves)

    def sampled_j(self, begin_s: float, end_s: float) -> float | None:
        """Integral of the sampled power between two moments; None where no samples cover them."""
        curve = self.power_curve
        return None if curve is None or not curve.covers(begin_s, end_s) else curve.between(begin_s, end_s)

    def within(self, begin_s: float, end_s: float) -> Track:
        """The part of the track between two moments."""
        return Track(
            counter=_cut(self.counter, begin_s, end_s, key=lambda read: read.read_s),
            samples=_cut(self.samples, begin_s, end_s, key=lambda sample: sample.time_s),
            failures=[failure for failure in self.failures if begin_s <= failure[0] <= end_s],
        )


def _median_gap_s(moves: Sequence[CounterRead]) -> float:
    return statistics.median(after.read_s - before.read_s for before, after in itertools.pairwise(moves))


def _cut(rows: list[_Row], begin_s: float, end_s: float, key: Callable[[_Row], float]) -> list[_Row]:
    """Rows, in order of time, between two moments."""
    return rows[bisect_left(rows, begin_s, key=key) : bisect_right(rows, end_s, key=key)]
