"""One attempt of one run: processes of its own, their log, and how they ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.ledger import State

_ERROR = "mlenergy: error: "
_INTERRUPTED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))


@dataclass
class Attempt:
    """A run that has been started."""

    job: Job
    places: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes]
    started_s: float  # monotonic clock

    @classmethod
    def start(cls, job: Job, command: Sequence[str], places: tuple[str, ...], log: Path) -> Attempt:
        """Start the run's processes; what they say goes to the log.

        Args:
            job: the run.
            command: the words that start it.
            places: GPUs that it may use; empty names on a CPU.
            log: file for stdout and stderr.
        """
        environ = dict(os.environ)
        if all(places):
            environ["CUDA_VISIBLE_DEVICES"] = ",".join(places)
        if job.processes > 1:
            environ.setdefault("OMP_NUM_THREADS", "1")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stream:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environ,
                start_new_session=True,  # a Ctrl-C is the sweep's to hand on
            )
        return cls(job, places, log, process, time.monotonic())

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started_s

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.process.poll()

    def ask_to_stop(self) -> None:
        """SIGTERM to torchrun, which hands it on and waits for the run to write what it has."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def how_it_ended(exit_code: int, log: Path) -> tuple[State, str]:
    """The state and the reason of a run whose exit code is not 0.

    torchrun's own exit code is 1 also where a run was interrupted, but then the run has said so.
    """
    reason = _last_log_line(log)
    interrupted = exit_code in _INTERRUPTED or reason.startswith("interrupted")
    return ("interrupted" if interrupted else "failed"), reason


def _last_log_line(log: Path) -> str:
    """A run's error line, or else its last line."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"
    told = [line.partition(_ERROR)[2] for line in lines if line.startswith(_ERROR)]
    said = [line.strip() for line in lines if line.strip()]
    return (told or said or ["it said nothing"])[-1]


def command_of(job: Job, extra: Sequence[str] = ()) -> list[str]:
    """The words that start the run."""
    module = "mlenergy.diffusion.executors.start"
    return [sys.executable, "-m", module, str(job.processes), *extra, *job.run.argv]
