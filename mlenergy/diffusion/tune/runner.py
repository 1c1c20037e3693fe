"""Starts of candidates, one after another on all devices, through the local executor and a ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlenergy.diffusion.config.argv import to_argv
from mlenergy.diffusion.executors.job import Job, has_result
from mlenergy.diffusion.executors.ledger import Entry, Ledger
from mlenergy.diffusion.executors.leftover import wait_for_leftovers
from mlenergy.diffusion.executors.local import LocalExecutor, Slots
from mlenergy.diffusion.executors.torchrun import command_of
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.tune.settings import options_of
from mlenergy.diffusion.tune.space import Candidate
from mlenergy.diffusion.tune.trials import Failed, Measured, read_start
from mlenergy.diffusion.version import __version__


class Runner:
    """Runs of one search.

    Args:
        folder: state and runs.
        slots: devices of the machine.
        save_images: whether the runs write their images.
        log: takes the lines of the executor.

    Raises:
        UserError: a run that an earlier call has left does not end.
    """

    def __init__(self, folder: Path, slots: Slots, save_images: bool, log: Callable[[str], None]) -> None:
        self._folder = folder
        self._save_images = save_images
        self._ledger = Ledger.load(folder / "state.json")
        wait_for_leftovers(self._ledger, log)
        self._executor = LocalExecutor(
            ledger=self._ledger,
            slots=slots,
            logs=folder / "logs",
            retries=0,
            is_done=_is_done,
            command=command_of,
            log=log,
        )

    def earlier(self, candidate: Candidate, start: int, iterations: int) -> Measured | Failed | None:
        """The outcome of a start in an earlier call of the program; None where it has to be made."""
        job = self._job(candidate, start, iterations)
        entry = self._ledger.entries.get(job.key)
        if _is_done(job):
            return read_start(_folder(job), None if entry is None else entry.duration_s)
        if entry is None or entry.state != "failed" or entry.planned_on != _planned_on(candidate):
            return None
        return Failed(entry.message or "it failed", entry.duration_s)

    def start(self, candidate: Candidate, start: int, iterations: int) -> Measured | Failed:
        """Measure in new processes, and wait for them.

        Raises:
            Stopped: by a signal; the run has ended and is recorded.
        """
        job = self._job(candidate, start, iterations)
        entry = self._ledger.entries.get(job.key) or Entry(job.argv, job.label)
        self._ledger.entries[job.key] = replace(
            entry,
            processes=job.processes,
            folder=str(job.folder),
            planned_on=_planned_on(candidate),
        )
        self._executor.run([job])
        entry = self._ledger.entries[job.key]
        if entry.state == "complete":
            return read_start(_folder(job), entry.duration_s)
        return Failed(entry.message or f"it ended as {entry.state}", entry.duration_s)

    def _job(self, candidate: Candidate, start: int, iterations: int) -> Job:
        """The job of one start, with a folder of its own, since starts are otherwise the same set-up."""
        base = str(self._folder / "runs" / f"start-{start}")
        args = replace(
            candidate.args,
            benchmark_iters=iterations,
            save_images=self._save_images,
            workload=replace(candidate.args.workload, base_dir=base),
        )
        plan = replace(
            candidate.plan, benchmark_iters=iterations, save_images=self._save_images, base_dir=base
        )
        argv = to_argv({**options_of(args, plan), "workload.base_dir": base})
        return Job.of(plan, argv, candidate.label, candidate.number, RunPaths.of(plan).folder)


def _is_done(job: Job) -> bool:
    return has_result(_folder(job))


def _folder(job: Job) -> Path:
    assert job.folder is not None, "every job of this machine has its folder"
    return job.folder


def _planned_on(candidate: Candidate) -> str:
    return f"{candidate.plan.device} {candidate.plan.device_name}, {__version__}"
