"""One window of measurement: the definition on one screen, with nothing else inside."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mlenergy.diffusion.engine import Batch, Generated

if TYPE_CHECKING:
    import torch

Generate = Callable[[Batch], Generated]


class Barrier(Protocol):
    """The part of a cluster that a window needs."""

    def barrier(self) -> None:
        """Wait for all ranks."""


class Reader(Protocol):
    """The part of an energy meter that a window needs."""

    def begin(self) -> None:
        """Read the counters where the window opens."""

    def end(self) -> None:
        """Read the counters where the window closes."""


class NoReader:
    """Reads nothing: for calls that are no windows, such as warm-up."""

    def begin(self) -> None:
        """Nothing to read."""

    def end(self) -> None:
        """Nothing to read."""


class Probe(Protocol):
    """The part of a stage probe that a window needs."""

    def open(self) -> None:
        """Mark the window's begin on the device."""


@dataclass(frozen=True)
class Window:
    """The output and the clock of one window on this rank, in seconds of the monotonic clock."""

    generated: Generated
    begin_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Seconds between begin and end."""
        return self.end_s - self.begin_s


def run_window(
    generate: Generate,
    batch: Batch,
    meter: Reader,
    cluster: Barrier,
    device: torch.device,
    probe: Probe | None = None,
) -> Window:
    """Measure one call of ``generate`` on this rank.

    The clock closes after the barrier, because a slow peer still draws power. The
    counters are read outside of the clock: a driver call may take a millisecond, which
    is no part of the work.
    """
    synchronize(device)
    cluster.barrier()
    meter.begin()
    begin_s = time.monotonic()
    if probe is not None:
        probe.open()
    generated = generate(batch)
    synchronize(device)
    cluster.barrier()
    end_s = time.monotonic()
    meter.end()
    return Window(generated, begin_s, end_s)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all work that this process gave it."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
