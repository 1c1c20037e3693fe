"""What is known of every candidate, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mlenergy.diffusion.tune.candidates import Candidate
from mlenergy.diffusion.tune.front import Point
from mlenergy.diffusion.tune.intervals import Interval, Spreads, interval_of, spreads_of
from mlenergy.diffusion.tune.starts import EnergyOf, Failed, Measured


@dataclass
class Tried:
    """A candidate with its starts so far, or with what made it fail."""

    candidate: Candidate
    starts: list[Measured] = field(default_factory=list)
    failure: Failed | None = None

    @property
    def is_new(self) -> bool:
        """Whether it was never started."""
        return not self.starts and self.failure is None


@dataclass(frozen=True)
class Objectives:
    """What is compared, for all candidates alike."""

    energy_of: EnergyOf | None  # whose joules; None: seconds alone count
    reason: str | None  # why seconds alone
    seconds_spreads: Spreads
    joules_spreads: Spreads

    def values(self, one: Tried) -> tuple[Interval, ...] | None:
        """A measured candidate's interval in each objective; None where one is not known."""
        if not one.starts:
            return None
        seconds = self.seconds(one)
        if self.energy_of is None:
            return (seconds,)
        joules = self.joules(one)
        return None if joules is None else (seconds, joules)

    def seconds(self, one: Tried) -> Interval:
        """Seconds per image."""
        spread = self.seconds_spreads.of(one.candidate.number)
        return interval_of([start.seconds for start in one.starts], spread)

    def joules(self, one: Tried) -> Interval | None:
        """Joules per image; None where a start has none."""
        known = [start.joules for start in one.starts if start.joules is not None]
        if len(known) < len(one.starts) or any(start.energy_of != self.energy_of for start in one.starts):
            return None
        return interval_of(known, self.joules_spreads.of(one.candidate.number))


def objectives_of(tried: Sequence[Tried]) -> Objectives:
    """Seconds and joules where any candidate has joules, else seconds alone."""
    starts = [start for one in tried for start in one.starts]
    kinds = {start.energy_of for start in starts}
    known: tuple[EnergyOf, ...] = ("gpu", "cpu_packages")
    energy_of = next((kind for kind in known if kind in kinds), None)
    reasons = [start.energy_reason for start in starts if start.energy_reason is not None]
    return Objectives(
        energy_of=energy_of,
        reason=reasons[0] if energy_of is None and reasons else None,
        seconds_spreads=spreads_of(
            {one.candidate.number: [start.seconds for start in one.starts] for one in tried}
        ),
        joules_spreads=spreads_of(
            {
                one.candidate.number: [
                    start.joules
                    for start in one.starts
                    if start.joules is not None and start.energy_of == energy_of
                ]
                for one in tried
            }
        ),
    )


def points_of(tried: Sequence[Tried], objectives: Objectives) -> list[Point]:
    """All candidates that can be compared."""
    values = {one.candidate.number: objectives.values(one) for one in tried}
    return [Point(number, known) for number, known in values.items() if known is not None]
