"""Runs a sweep on this machine: packs runs onto its GPUs, retries, and keeps the ledger true."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.ledger import Ledger, now
from mlenergy.diffusion.executors.process import Attempt, how_it_ended
from mlenergy.diffusion.executors.slots import Slots
from mlenergy.diffusion.supervision.exit_codes import USER_ERROR

POLL_S = 0.1
# torchrun gives its processes 30 s to end by themselves.
GRACE_S = 40.0


class Stopped(Exception):
    """A signal asked the sweep to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class LocalSweep:
    """One invocation of a sweep on this machine."""

    ledger: Ledger
    slots: Slots
    logs: Path
    retries: int
    is_done: Callable[[Job], bool]
    command: Callable[[Job], Sequence[str]]  # what starts a job
    say: Callable[[str], None] = lambda line: None
    waiting: list[Job] = field(default_factory=list)
    running: list[Attempt] = field(default_factory=list)
    _tries: dict[str, int] = field(default_factory=dict)  # in this invocation
    _signals: list[int] = field(default_factory=list)  # that asked to stop

    def run(self, jobs: Sequence[Job], refresh: Callable[[], None] = lambda: None) -> None:
        """Run all jobs to their end.

        Args:
            jobs: what to run, in order. A job that does not fit now lets later ones go first.
            refresh: called a few times a second, for a table on the terminal.

        Raises:
            Stopped: by SIGINT, SIGTERM or SIGUSR1, when all runs have ended and are recorded.
        """
        self.waiting = list(jobs)
        with self._signals_noted():
            try:
                while (self.waiting or self.running) and not self._signals:
                    if not (self._start_what_fits() or self._collect()):
                        time.sleep(POLL_S)
                    refresh()
            finally:
                self._end_all()
        if self._signals:
            raise Stopped(self._signals[0])

    def _start_what_fits(self) -> bool:
        for job in self.waiting:
            places = self.slots.take(job.processes)
            if places is not None:
                self.waiting.remove(job)
                self._start(job, places)
                return True
        return False

    def _start(self, job: Job, places: tuple[str, ...]) -> None:
        key = job.run.key
        attempts = self.ledger.entries[key].attempts + 1
        self._tries[key] = self._tries.get(key, 0) + 1
        log = self.logs / f"{job.run.number:04d}-{key}-attempt-{attempts}.log"
        self.running.append(Attempt.start(job, self.command(job), places, log))
        self.ledger.update(
            key,
            state="running",
            attempts=attempts,
            started=now(),
            **dict.fromkeys(("ended", "duration_s", "exit_code", "message")),
            log=str(log),
        )
        self.ledger.save()
        on = f" on GPU {','.join(places)}" if all(places) else ""
        self.say(f"run {job.run.number} started{on}, attempt {attempts}: {job.run.label}")

    def _collect(self) -> bool:
        ended = [attempt for attempt in self.running if attempt.poll() is not None]
        for attempt in ended:
            self.running.remove(attempt)
            self.slots.give_back(attempt.places)
            self._record(attempt)
        return bool(ended)

    def _record(self, attempt: Attempt) -> None:
        job, code = attempt.job, attempt.process.returncode
        key = job.run.key
        message = None
        if code:
            state, message = how_it_ended(code, attempt.log)
        elif self.is_done(job):
            state = "complete"
        else:
            state, message = "failed", "it ended with exit code 0 but left no complete result"
        self.ledger.update(
            key,
            state=state,
            exit_code=code,
            message=message,
            ended=now(),
            duration_s=round(attempt.elapsed_s, 3),
        )
        self.ledger.save()
        self.say(
            f"run {job.run.number} {state} after {attempt.elapsed_s:.1f} s"
            + (f": {message}" if message else "")
        )
        # A user's mistake fails again in the same way.
        if state == "failed" and code != USER_ERROR and self._tries[key] <= self.retries:
            self.waiting.append(job)

    def _end_all(self) -> None:
        """Nothing runs on when the sweep has ended: ask, wait (a second signal ends the wait), then kill."""
        for attempt in self.running:
            attempt.ask_to_stop()
        limit = time.monotonic() + GRACE_S
        while any(a.poll() is None for a in self.running):
            if time.monotonic() > limit or len(self._signals) > 1:
                break
            time.sleep(POLL_S)
        for attempt in self.running:
            attempt.kill()
            finished = attempt.process.returncode == 0 and self.is_done(attempt.job)
            self.ledger.update(
                attempt.job.run.key,
                state="complete" if finished else "interrupted",
                exit_code=attempt.process.returncode,
                message=None if finished else "the sweep was stopped",
                ended=now(),
                duration_s=round(attempt.elapsed_s, 3),
            )
        if self.running:
            self.running.clear()
            self.ledger.save()

    @contextmanager
    def _signals_noted(self) -> Iterator[None]:
        """Signals are noted, not raised, so that none cuts between a start and its record."""

        def note(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)

        before = {one: signal.signal(one, note) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
