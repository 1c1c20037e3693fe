"""Energy between two moments, from power samples or from a counter's updates."""

from __future__ import annotations

import itertools
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from mlenergy.diffusion.measure.energy.sampler import CounterRead, Sample


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
        """Whether both moments lie within the curve."""
        return len(self.times_s) > 1 and self.times_s[0] <= begin_s and end_s <= self.times_s[-1]

    def _at(self, time_s: float) -> float:
        right = min(max(bisect_right(self.times_s, time_s), 1), len(self.times_s) - 1)
        before, after = self.times_s[right - 1], self.times_s[right]
        power_w = (self.energy_j[right] - self.energy_j[right - 1]) / (after - before)
        return self.energy_j[right - 1] + (time_s - before) * power_w


def power_curve(samples: Sequence[Sample]) -> Curve | None:
    """Integral of sampled power, each sample held until the next; None for fewer than two.

    Holding is what makes constant power come out right: equal readings still count.
    """
    known = [(sample.time_s, sample.power_w) for sample in samples if sample.power_w is not None]
    if len(known) < 2:
        return None
    total_j, energy_j = 0.0, [0.0]
    for (time_s, power_w), (next_s, _) in itertools.pairwise(known):
        total_j += power_w * (next_s - time_s)
        energy_j.append(total_j)
    return Curve(tuple(time_s for time_s, _ in known), tuple(energy_j))


def counter_curve(reads: Sequence[CounterRead]) -> Curve | None:
    """The counter at the moments at which it moved; None for fewer than two moves.

    The moment lies between the last read of the old and the first read of the new figure;
    the first read of all tells no moment and is left out. A counter that moves with every
    read has no period: its moment is that of the read.
    """
    moves = reads[1:]
    if len(moves) < 2:
        return None
    polled_s = statistics.median(move.read_s - move.before_s for move in moves)
    period_s = statistics.median(b.read_s - a.read_s for a, b in itertools.pairwise(moves))
    steady = period_s < 1.5 * polled_s
    times_s = [move.read_s if steady else (move.before_s + move.read_s) / 2 for move in moves]
    return Curve(tuple(times_s), tuple(move.energy_j for move in moves))


def counter_period_s(reads: Sequence[CounterRead]) -> float | None:
    """Median time between two moves of the counter, in seconds; None for fewer than three moves."""
    moves = reads[1:]
    if len(moves) < 3:
        return None
    return statistics.median(b.read_s - a.read_s for a, b in itertools.pairwise(moves))
