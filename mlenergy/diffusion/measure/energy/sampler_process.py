"""The sampling process: reads the driver at a fixed period, beside the measuring process.

Started by path, with nothing but the standard library and nvidia-ml-py, so that it starts
quickly and never waits for the measuring process's interpreter. It ends when its standard
input closes. The kernel closes that pipe however the measuring process ends, SIGKILL
included, so this process cannot outlive the run.

Lines it writes (times are of the machine's monotonic clock, in seconds; "-" is unknown):
    c <gpu> <time before this read> <time of this read> <counter, mJ>   the energy counter moved
    s <gpu> <time> <power, mW> <temperature, C> <SM clock, MHz> <event reasons>
    e <gpu> <time> <NVML error code> <what was read>                    a read failed, once a kind
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pynvml


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
        figures = (
            self._query("power", _power_mw, self._handle),
            self._query("temperature", pynvml.nvmlDeviceGetTemperature, self._handle, 0),
            self._query("clock", pynvml.nvmlDeviceGetClockInfo, self._handle, pynvml.NVML_CLOCK_SM),
            self._query("events", _event_reasons, self._handle),
        )
        text = " ".join("-" if figure is None else str(figure) for figure in figures)
        self._out.write(f"s {self._index} {now_s:.6f} {text}\n")

    def _query(self, what: str, query: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return query(*arguments)
        except pynvml.NVMLError as error:
            if what not in self._failed:
                self._failed.add(what)
                self._out.write(f"e {self._index} {time.monotonic():.6f} {error.value} {what}\n")
            return None


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
    """Sample until standard input closes: figures every ``period_s``, the counter every ``poll_s``."""
    pynvml.nvmlInit()
    with Path(path).open("w") as out:
        gpus = [GpuReader(index, out) for index in indices]
        _sample(gpus)
        print("ready", flush=True)
        due_s = sample_due_s = time.monotonic()
        sample_due_s += period_s
        while not _closed(due_s + poll_s - time.monotonic()):
            # After a late wake-up the next tick is one period from now: no burst to catch up.
            due_s = max(due_s + poll_s, time.monotonic() - poll_s)
            for gpu in gpus:
                gpu.read_counter()
            if time.monotonic() >= sample_due_s:
                sample_due_s = max(sample_due_s + period_s, time.monotonic())
                _sample(gpus)
        for gpu in gpus:
            gpu.read_counter()
        _sample(gpus)


def _sample(gpus: list[GpuReader]) -> None:
    """One sample of every GPU."""
    for gpu in gpus:
        gpu.read_sample()


def _closed(wait_s: float) -> bool:
    """Sleep; True as soon as standard input is closed at its other end."""
    return bool(select.select([sys.stdin], [], [], max(0.0, wait_s))[0])


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), [int(index) for index in sys.argv[4:]])
