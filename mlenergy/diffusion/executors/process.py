"""One attempt at a run: its processes, their log, and the way they ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.ledger import State
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.supervision.exit_codes import UNEXPECTED
from mlenergy.diffusion.supervision.parent import LIFELINE
from mlenergy.diffusion.supervision.status import close_for_the_dead, read_ending

_ERROR = "mlenergy: error: "
_INTERRUPTED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))


@dataclass
class Attempt:
    """A run that has been started."""

    job: Job
    places: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes]
    began_s: float  # since the epoch, as status files tell the time
    started_s: float  # by the monotonic clock

    @classmethod
    def start(cls, job: Job, command: Sequence[str], places: tuple[str, ...], log: Path) -> Attempt:
        """Start the run's processes, with their output in the log.

        Args:
            job: the run.
            command: the words that start it.
            places: GPUs that it may use; empty names on a CPU.
            log: file for stdout and stderr.
        """
        environ = dict(os.environ)
        if all(places):
            environ["CUDA_VISIBLE_DEVICES"] = ",".join(places)
        environ[LIFELINE] = "stdin"
        if job.processes > 1:
            environ.setdefault("OMP_NUM_THREADS", "1")
        log.parent.mkdir(parents=True, exist_ok=True)
        began_s, started_s = time.time(), time.monotonic()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                list(command),
                # A pipe that this process alone holds open: the run ends with it, also by SIGKILL.
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environ,
                # A Ctrl-C reaches the executor alone, which then asks each run to stop.
                start_new_session=True,
            )
        return cls(job, places, log, process, began_s, started_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started_s

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.process.poll()

    def ask_to_stop(self) -> None:
        """Send SIGTERM to torchrun, which passes it on and waits for the run to save what it has."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill all of its processes that still run; torchrun puts the ranks into sessions of their own."""
        ranks = _descendants(self.process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def failure(self) -> tuple[State, str]:
        """State and reason of an attempt whose exit code is not 0.

        The run's own status.json says both. The log's last line is the fallback for a run that ended before
        it had a status (a mistake in its options, a failed import) or could not finish it (killed).
        """
        code, folder = self.process.returncode, self.job.folder
        ending = None if folder is None else read_ending(RunPaths(folder, "").status, self.began_s)
        if ending is None or ending.message is None:
            state, message = failure_in_log(code, self.log)
            if folder is not None:
                close_for_the_dead(RunPaths(folder, "").status, message)
            return state, message
        if ending.state == "interrupted" or code in _INTERRUPTED:
            return "interrupted", ending.message
        where = f"; see {folder}/status.json" if ending.exit_code == UNEXPECTED else ""
        return "failed", f"{ending.message}{where}"


def _descendants(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def failure_in_log(exit_code: int, log: Path) -> tuple[State, str]:
    """State and reason of a run whose exit code is not 0, by its log: its last error, or else its last line.

    Under Slurm this is all that the submitting host has, since a node's GPU names the result folder.
    torchrun exits with 1 where a run was interrupted, too, hence the look at the words.
    """
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        return "failed", f"its log cannot be read: {error.strerror}"
    errors = errors_in(lines)
    reason = (errors or lines or ["it printed nothing"])[-1]
    interrupted = exit_code in _INTERRUPTED or reason.startswith("interrupted")
    return ("interrupted" if interrupted else "failed"), reason


def errors_in(lines: Iterable[str]) -> list[str]:
    """The error lines of a run's output, without the program's name."""
    return [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
