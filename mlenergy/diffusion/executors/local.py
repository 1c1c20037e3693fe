"""Runs jobs on this machine: packs them onto its GPUs, retries them, and keeps the ledger current."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from mlenergy.diffusion.environment.gpus import list_gpus, visible_gpus
from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.ledger import Ledger, now
from mlenergy.diffusion.executors.process import Attempt
from mlenergy.diffusion.supervision.exit_codes import USER_ERROR

POLL_S = 0.1
# torchrun gives its processes 30 s to end by themselves.
GRACE_S = 40.0


class Stopped(Exception):
    """A signal stopped the executor; its runs have ended."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Slots:
    """Places for processes. On GPUs a place is a GPU; on a CPU it has no name.

    Args:
        gpus: names for CUDA_VISIBLE_DEVICES.
        unnamed: number of places on a CPU, where there are no GPUs.
        alone: one run at a time, however many places are free.
    """

    def __init__(self, gpus: Sequence[str] = (), unnamed: int = 0, alone: bool = False) -> None:
        self._free = list(gpus) if gpus else [""] * unnamed
        self._order = {gpu: place for place, gpu in enumerate(self._free)}
        self._alone = alone
        self.total = len(self._free)
        self.described = f"{self.total} GPUs" if gpus else f"{self.total} slots"

    def acquire(self, count: int) -> tuple[str, ...] | None:
        """The first `count` free places, or None where fewer are free."""
        if count > len(self._free) or (self._alone and len(self._free) < self.total):
            return None
        acquired, self._free = self._free[:count], self._free[count:]
        return tuple(acquired)

    def release(self, places: Sequence[str]) -> None:
        """Free places again; they keep their order, so that neighbours stay together."""
        self._free = sorted([*self._free, *places], key=lambda place: self._order.get(place, 0))


def visible_gpu_ids() -> list[str]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES would name them."""
    visible = visible_gpus(list_gpus().gpus)
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [entry.strip() for entry in os.environ["CUDA_VISIBLE_DEVICES"].split(",")][: len(visible)]
    # UUIDs, since the driver and CUDA can number GPUs differently.
    return [gpu.uuid for gpu in visible]


@dataclass
class LocalExecutor:
    """Runs jobs until all have ended, several at a time where they fit."""

    ledger: Ledger  # has an entry for each job
    slots: Slots
    logs: Path  # folder, one file for each attempt
    retries: int
    is_done: Callable[[Job], bool]
    command: Callable[[Job], Sequence[str]]
    log: Callable[[str], None] = lambda line: None
    waiting: list[Job] = field(default_factory=list)
    running: list[Attempt] = field(default_factory=list)
    _tries: dict[str, int] = field(default_factory=dict)  # attempts of a job by this executor
    _signals: list[int] = field(default_factory=list)  # received so far

    def run(self, jobs: Sequence[Job], refresh: Callable[[], None] = lambda: None) -> None:
        """Run all jobs to their end.

        Args:
            jobs: in order. A job that does not fit now lets later ones go first.
            refresh: called a few times a second, for a table on the terminal.

        Raises:
            Stopped: by SIGINT, SIGTERM, SIGUSR1 or SIGHUP, when all runs have ended and are recorded.
        """
        self.waiting = list(jobs)
        with self._signals_recorded():
            try:
                while (self.waiting or self.running) and not self._signals:
                    if not (self._start_next() or self._collect()):
                        time.sleep(POLL_S)
                    refresh()
            finally:
                self._end_all()
        if self._signals:
            raise Stopped(self._signals[0])

    def _start_next(self) -> bool:
        for job in self.waiting:
            places = self.slots.acquire(job.processes)
            if places is not None:
                self.waiting.remove(job)
                self._start(job, places)
                return True
        return False

    def _start(self, job: Job, places: tuple[str, ...]) -> None:
        attempts = self.ledger.entries[job.key].attempts + 1
        self._tries[job.key] = self._tries.get(job.key, 0) + 1
        log = self.logs / f"{job.number:04d}-{job.key}-attempt-{attempts}.log"
        self.running.append(Attempt.start(job, self.command(job), places, log))
        self.ledger.update(
            job.key,
            state="running",
            attempts=attempts,
            started=now(),
            **dict.fromkeys(("ended", "duration_s", "exit_code", "message")),
            log=str(log),
        )
        self.ledger.save()
        on = f" on GPU {','.join(places)}" if all(places) else ""
        self.log(f"run {job.number} started{on}, attempt {attempts}: {job.label}")

    def _collect(self) -> bool:
        """Record the attempts that have ended; False where none has."""
        ended = [attempt for attempt in self.running if attempt.poll() is not None]
        for attempt in ended:
            self.running.remove(attempt)
            self.slots.release(attempt.places)
            self._record(attempt)
        return bool(ended)

    def _record(self, attempt: Attempt) -> None:
        job, code = attempt.job, attempt.process.returncode
        message = None
        if code:
            state, message = attempt.failure()
        elif self.is_done(job):
            state = "complete"
        else:
            state, message = "failed", "it ended with exit code 0 but left no complete result"
        self.ledger.update(
            job.key,
            state=state,
            exit_code=code,
            message=message,
            ended=now(),
            duration_s=round(attempt.elapsed_s, 3),
        )
        self.ledger.save()
        reason = f": {message}" if message else ""
        self.log(f"run {job.number} {state} after {attempt.elapsed_s:.1f} s{reason}")
        # A user's mistake fails again in the same way.
        if state == "failed" and code != USER_ERROR and self._tries[job.key] <= self.retries:
            self.waiting.append(job)

    def _end_all(self) -> None:
        """Leave nothing running: ask, wait (a second signal ends the wait), then kill."""
        for attempt in self.running:
            attempt.ask_to_stop()
        limit = time.monotonic() + GRACE_S
        while any(attempt.poll() is None for attempt in self.running):
            if time.monotonic() > limit or len(self._signals) > 1:
                break
            time.sleep(POLL_S)
        for attempt in self.running:
            attempt.kill()
            finished = attempt.process.returncode == 0 and self.is_done(attempt.job)
            self.ledger.update(
                attempt.job.key,
                state="complete" if finished else "interrupted",
                exit_code=attempt.process.returncode,
                message=None if finished else "stopped before it ended",
                ended=now(),
                duration_s=round(attempt.elapsed_s, 3),
            )
        if self.running:
            self.running.clear()
            self.ledger.save()

    @contextmanager
    def _signals_recorded(self) -> Iterator[None]:
        """Record signals rather than raise, so that none comes between a start and its record."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)

        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
