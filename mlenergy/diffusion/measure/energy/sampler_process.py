"""The sampling process: reads the driver periodically, beside the measuring process.

Started by path, with nothing but the standard library and nvidia-ml-py, so that it starts
quickly and never waits for the measuring process's interpreter. It ends when its standard
input closes. The kernel closes that pipe however the measuring process ends, SIGKILL
included, so this process cannot outlive the run.

A read holds locks of the driver that the measured work may want too, and GPUs are read one after the
other. So a period widens, and stays so, as soon as reading all GPUs takes more than a twentieth of it.

Lines it writes (times are of the machine's monotonic clock, in seconds; "-" is unknown):
    c <gpu> <time before this read> <time of this read> <counter, mJ>   the energy counter moved
    s <gpu> <time> <power, mW> <temperature, C> <SM clock, MHz> <event reasons>
    e <gpu> <time> <NVML error code> <what was read>                    a read failed, once a kind
    p - <time> <period> <counters' period> <sample's time>              from here on, in seconds; a sample of
                                                                        all GPUs takes so long
"""

from __future__ import annotations

import select
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import pynvml

MOST_READING = 0.05  # share of a period that a read of all GPUs may take
_READS_TO_JUDGE = 5  # their median: a process that is scheduled away once does not widen a period
_READS_KEPT = 25


class GpuReader:
    """Reads of one GPU; each kind of failure is written once."""

    def __init__(self, index: int, out: TextIO) -> None:
        self._index = index
        self._out = out
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self._counter: int | None = None
        self._read_s = time.monotonic()
        self._failed: set[str] = set()

    def read_counter(self) -> None:
        """Write a line if the energy counter has moved since the last read."""
        before_s = self._read_s
        self._read_s = time.monotonic()
        counter = self._query("counter", pynvml.nvmlDeviceGetTotalEnergyConsumption, self._handle)
        if counter is not None and counter != self._counter:
            self._counter = counter
            self._out.write(f"c {self._index} {before_s:.6f} {self._read_s:.6f} {counter}\n")

    def read_sample(self) -> None:
        """Write a line with power, temperature, clock and event reasons of this moment."""
        now_s = time.monotonic()
        text = " ".join("-" if figure is None else str(figure) for figure in self.figures())
        self._out.write(f"s {self._index} {now_s:.6f} {text}\n")

    def figures(self) -> tuple[int | None, ...]:
        """Power in mW, temperature in C, clock in MHz, event reasons; None where the driver gives none."""
        return (
            self._query("power", _power_mw, self._handle),
            self._query("temperature", pynvml.nvmlDeviceGetTemperature, self._handle, 0),
            self._query("clock", pynvml.nvmlDeviceGetClockInfo, self._handle, pynvml.NVML_CLOCK_SM),
            self._query("events", _event_reasons, self._handle),
        )

    def _query(self, what: str, query: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return query(*arguments)
        except pynvml.NVMLError as error:
            if what not in self._failed:
                self._failed.add(what)
                self._out.write(f"e {self._index} {time.monotonic():.6f} {error.value} {what}\n")
            return None


class Pace:
    """One kind of read: its period, which widens where reading all GPUs takes too large a share of it."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._reads_s: deque[float] = deque(maxlen=_READS_KEPT)

    @property
    def read_s(self) -> float:
        """Median time that the last reads of all GPUs took."""
        return statistics.median(self._reads_s)

    def time(self, reads: Sequence[Callable[[], object]]) -> bool:
        """Read all GPUs; True where the period had to be widened for what the last reads took."""
        begin_s = time.monotonic()
        for read in reads:
            read()
        self._reads_s.append(time.monotonic() - begin_s)
        needed_s = self.read_s / MOST_READING
        if len(self._reads_s) < _READS_TO_JUDGE or needed_s <= self.period_s:
            return False
        self.period_s = needed_s
        return True


def _power_mw(handle: Any) -> int:
    """The power of this instant; the driver's own average where there is no such field (old GPUs)."""
    field = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])[0]
    if field.nvmlReturn == pynvml.NVML_SUCCESS:
        return int(field.value.uiVal)
    return int(pynvml.nvmlDeviceGetPowerUsage(handle))


def _event_reasons(handle: Any) -> int:
    """Reasons for held-down clocks, as a bit mask; older drivers have the call under its older name."""
    try:
        return int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    except pynvml.NVMLError_FunctionNotFound:
        return int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))


def main(path: str, period_s: float, poll_s: float, indices: list[int]) -> None:
    """Sample until standard input closes: figures every ``period_s``, the counter every ``poll_s``.

    Both are the least: see ``Pace``.
    """
    pynvml.nvmlInit()
    with Path(path).open("w") as out:
        gpus = [GpuReader(index, out) for index in indices]
        samples, counters = Pace(period_s), Pace(poll_s)
        sample, count = [gpu.read_sample for gpu in gpus], [gpu.read_counter for gpu in gpus]

        def tell_paces() -> None:
            paces = f"{samples.period_s!r} {counters.period_s!r} {samples.read_s:.6f}"
            out.write(f"p - {time.monotonic():.6f} {paces}\n")

        for _ in range(_READS_TO_JUDGE):
            counters.time(count)
        for _ in range(_READS_TO_JUDGE - 1):  # not written: many samples of one moment would weigh too much
            samples.time([gpu.figures for gpu in gpus])
        samples.time(sample)
        tell_paces()
        print(f"ready {samples.period_s} {counters.period_s}", flush=True)
        due_s = sample_due_s = time.monotonic()
        sample_due_s += samples.period_s
        while not _closed(due_s + counters.period_s - time.monotonic()):
            # After a late wake-up the next tick is one period from now: no burst to catch up.
            due_s = max(due_s + counters.period_s, time.monotonic() - counters.period_s)
            widened = counters.time(count)
            if time.monotonic() >= sample_due_s:
                widened = samples.time(sample) or widened
                sample_due_s = max(sample_due_s + samples.period_s, time.monotonic())
            if widened:
                tell_paces()
        for read in (*count, *sample):
            read()
        tell_paces()


def _closed(wait_s: float) -> bool:
    """Sleep; True as soon as standard input is closed at its other end."""
    return bool(select.select([sys.stdin], [], [], max(0.0, wait_s))[0])


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), [int(index) for index in sys.argv[4:]])
