"""The measuring process's side of the sampling process: start, stop, read.

Its times need no translation: the monotonic clock is one for all processes of a machine
(clock_gettime(2), CLOCK_MONOTONIC), so its samples and our windows lie on one axis.
"""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlenergy.diffusion.measure.energy.curves import CounterRead, Sample, Track

COUNTER_POLL_S = 0.01  # finds the moment of a counter's update to within 10 ms
_READY_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0


class Sampler:
    """A process that samples the given GPUs (driver's indices) from ``start`` to ``stop``.

    period_s, poll_s: between two samples and between two reads of the counters. After ``start`` and ``stop``
    they are the real ones, wider where a read of all GPUs takes long (``sampler_process.MOST_READING``).
    """

    def __init__(self, indices: Sequence[int], period_s: float, poll_s: float = COUNTER_POLL_S) -> None:
        self.period_s = period_s
        self._indices = list(indices)
        self.poll_s = min(poll_s, period_s)
        self.sample_read_s: float | None = None  # median time that a sample of all GPUs took, after stop
        self._child: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> str | None:
        """Start the process and wait for its first sample; returns a failure's text, or None."""
        self._folder = tempfile.TemporaryDirectory(prefix="mlenergy-samples-")
        command = [
            *(sys.executable, "-P", str(Path(__file__).with_name("sampler_process.py"))),
            *(str(self._path), str(self.period_s), str(self.poll_s)),
            *(str(index) for index in self._indices),
        ]
        # A session of its own: Ctrl-C must reach the run first, which then closes the pipe.
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._child.stdout is not None
        if not select.select([self._child.stdout], [], [], _READY_TIMEOUT_S)[0]:
            self.kill()
            return f"the sampling process was not ready within {_READY_TIMEOUT_S:.0f} s"
        answer, *paces = self._child.stdout.readline().split() or [""]
        if answer != "ready":
            _, stderr = self._child.communicate()
            self.kill()
            return f"the sampling process ended: {stderr.strip().splitlines()[-1:] or ['no message']}"
        self.period_s, self.poll_s = (float(pace) for pace in paces)
        return None

    def stop(self) -> dict[int, Track]:
        """End the process; its tracks by the driver's index, none if it never ran."""
        if self._child is None or self._folder is None:
            return {}
        try:
            # Closes its standard input, which is its sign to take a last sample and end.
            self._child.communicate("", timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()
        recording = read_recording(self._path) if self._path.exists() else Recording()
        self.kill()
        if recording.paces is not None:
            self.period_s, self.poll_s = recording.paces.period_s, recording.paces.poll_s
            self.sample_read_s = recording.paces.sample_read_s
        return recording.tracks

    def kill(self) -> None:
        """End the process, whatever it does, and remove its file."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
                if pipe is not None:
                    pipe.close()
            self._child = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def _path(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "samples"


@dataclass(frozen=True)
class Paces:
    """Real periods of samples and counter reads, and the seconds that a sample of all GPUs takes."""

    period_s: float
    poll_s: float
    sample_read_s: float


@dataclass
class Recording:
    """All that a sampling process wrote: tracks by the driver's index, and the widest periods."""

    tracks: dict[int, Track] = field(default_factory=dict)
    paces: Paces | None = None


def read_recording(path: Path) -> Recording:
    """Parse the file of the sampling process; an unfinished last line is left out."""
    found = Recording()
    with path.open() as lines:
        for line in lines:
            if not line.endswith("\n"):
                break
            kind, gpu, *rest = line.split()
            if kind == "p":
                found.paces = Paces(*(float(text) for text in rest[1:4]))
                continue
            track = found.tracks.setdefault(int(gpu), Track())
            if kind == "c":
                track.counter.append(CounterRead(float(rest[0]), float(rest[1]), int(rest[2]) / 1000))
            elif kind == "s":
                track.samples.append(_sample(rest))
            else:
                track.failures.append((float(rest[0]), int(rest[1]), rest[2]))
    return found


def _sample(fields: list[str]) -> Sample:
    numbers = [None if text == "-" else int(text) for text in fields[1:]]
    power_mw, temperature_c, sm_clock_mhz, reasons = numbers
    power_w = None if power_mw is None else power_mw / 1000
    return Sample(float(fields[0]), power_w, temperature_c, sm_clock_mhz, reasons)
