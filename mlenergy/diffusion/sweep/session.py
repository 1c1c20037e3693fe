"""One call of `mlenergy sweep`: run here, submit, print, or show the state."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mlenergy.diffusion.executors import slurm
from mlenergy.diffusion.executors.job import Job, has_result
from mlenergy.diffusion.executors.ledger import Entry, Ledger
from mlenergy.diffusion.executors.leftover import as_on_disk, wait_for_leftovers
from mlenergy.diffusion.executors.local import LocalExecutor, Slots, Stopped, visible_gpu_ids
from mlenergy.diffusion.executors.torchrun import command_of
from mlenergy.diffusion.report.show_command import table_of
from mlenergy.diffusion.report.show_view import print_table
from mlenergy.diffusion.results.collect import collect
from mlenergy.diffusion.results.lock import holder_of
from mlenergy.diffusion.sweep.expand import Run
from mlenergy.diffusion.sweep.forecast import Total
from mlenergy.diffusion.sweep.spec import SweepSpec
from mlenergy.diffusion.sweep.todo import ToDo, hold_back, prune, what_is_left
from mlenergy.diffusion.sweep.view import SweepLog, count_line, live_table, run_table

_SHOWN_PRUNED = 5
_ENDED = {"failed": "failed", "interrupted": "was interrupted"}
_SHOWN_RESULTS = 20
_READ_AT_THE_END = 200
_PIPED_WIDTH = 160  # without a terminal, which would have one


class Session:
    """One sweep, its runs and its ledger."""

    def __init__(
        self,
        spec: SweepSpec,
        runs: Sequence[Run],
        ledger: Ledger,
        resume: bool,
        show_results: bool = True,
    ) -> None:
        self.spec = spec
        self.runs = runs
        self.ledger = ledger
        self.resume = resume
        self.show_results = show_results
        self.numbers = {run.key: run.number for run in runs}
        self.console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
        self.extra = () if resume else ("--overwrite_results",)

    def run_here(self, gpus: Sequence[str] | None, slots: int | None) -> int:
        """Run on this machine.

        Returns:
            0 where every run that can work is complete, 1 where some failed, 128 + signal where stopped.
        """
        log = SweepLog(self.spec.folder / "sweep.log", self.console)
        wait_for_leftovers(self.ledger, log.print)
        todo, places = self._to_do_here(gpus, slots)
        self._begin(todo, log)
        executor = LocalExecutor(
            ledger=self.ledger,
            slots=places,
            logs=self.spec.folder / "logs",
            retries=self.spec.retries,
            is_done=lambda job: job.folder is not None and has_result(job.folder),
            command=lambda job: command_of(job, self.extra),
            log=log.print,
        )
        code = 0
        try:
            with live_table(executor, self.numbers, self.console) as refresh:
                executor.run(todo.jobs, refresh)
        except Stopped as stopped:
            log.print(f"stopped by {stopped}; the same command continues")
            code = 128 + stopped.number
        self._end()
        return code or int(self.ledger.counts(self.numbers)["failed"] > 0)

    def submit(self) -> int:
        """Submit what is left to Slurm.

        Returns:
            0, or 1 where runs have failed too often to be submitted again.
        """
        log = SweepLog(self.spec.folder / "sweep.log", self.console)
        slurm.refresh(self.ledger)
        todo, held = self._to_do_on_cluster()
        self._begin(todo, log)
        for job in held:
            log.print(self._why_held(job))
        ids = slurm.submit(
            todo.jobs,
            self.spec.slurm,
            self.spec.name,
            slurm.next_folder(self.spec.folder / "slurm"),
            self.ledger,
            self.extra,
        )
        log.print(f"submitted {len(todo.jobs)} runs as job {', '.join(ids)}" if ids else "nothing to submit")
        self._end()
        return int(bool(held))

    def show_state(self) -> int:
        """Print every run's state, asking Slurm where it has some of them.

        What lies on disk counts: a run whose sweep was killed is not running, whatever the ledger says.
        """
        slurm.refresh(self.ledger)
        if holder_of(self.spec.folder / ".lock") is None:  # a sweep that runs keeps its own ledger current
            self.ledger.entries = {key: as_on_disk(entry) for key, entry in self.ledger.entries.items()}
        rows = [
            (run.number, self.ledger.entries.get(run.key) or Entry(run.argv, run.label)) for run in self.runs
        ]
        self.console.print(run_table(rows))
        self._print(count_line(self.ledger, self.numbers))
        return 0

    def print_commands(
        self, executor: str, gpus: Sequence[str] | None, slots: int | None, total: Total | None = None
    ) -> int:
        """Print exactly what would run, or be submitted, in order, without starting or writing anything.

        total: the runs' forecasts are added to it.
        """
        held: list[Job] = []
        if executor == "local":
            todo, _ = self._to_do_here(gpus, slots)
        else:
            slurm.refresh(self.ledger, save=False)
            todo, held = self._to_do_on_cluster()
        self._print_why_not(todo, held)
        if total is not None:
            total.add(todo.jobs)
        if executor == "local":
            for job in todo.jobs:
                self._print(shlex.join(command_of(job, self.extra)))
            return 0
        folder = slurm.next_folder(self.spec.folder / "slurm")
        for array in slurm.arrays_of(todo.jobs, self.spec.slurm):
            self._print(f"# {folder / array.name}.txt")
            self._print(slurm.lines_text(array, self.extra))
            self._print(f"# sbatch {folder / array.name}.sbatch")
            self._print(slurm.sbatch_text(array, self.spec.slurm, self.spec.name, folder))
        return 0

    def _print_why_not(self, todo: ToDo, held: Sequence[Job]) -> None:
        """Print the reasons against what would not run."""
        for one in todo.pruned:
            self._print(f"# run {one.number} cannot work: {one.reason}")
        for number, entry in self._entries():
            if entry.state in ("complete", "submitted", "running"):
                self._print(f"# run {number} is {entry.state}: {entry.folder or entry.slurm_task}")
        for job in held:
            self._print(f"# {self._why_held(job)}")

    def _to_do_here(self, gpus: Sequence[str] | None, slots: int | None) -> tuple[ToDo, Slots]:
        todo = what_is_left(self.spec, self.runs, self.ledger, "here", self.resume)
        places = _places(todo.jobs, gpus, slots)
        reason = "{} processes, but there are {} here; use --executor slurm, or smaller degrees"
        too_large = [job for job in todo.jobs if job.processes > places.total]
        reasons = {job.key: reason.format(job.processes, places.described) for job in too_large}
        return prune(todo, self.ledger, reasons), places

    def _to_do_on_cluster(self) -> tuple[ToDo, list[Job]]:
        """Jobs to submit, and those that were submitted too often."""
        earlier = dict(self.ledger.entries)
        todo = what_is_left(self.spec, self.runs, self.ledger, "cluster", self.resume)
        shapes = {job.key: slurm.reason_against(job, self.spec.slurm) for job in todo.jobs}
        todo = prune(todo, self.ledger, {key: reason for key, reason in shapes.items() if reason})
        return hold_back(todo, self.ledger, earlier, self.spec.retries)

    def _why_held(self, job: Job) -> str:
        entry = self.ledger.entries[job.key]
        times = "once" if entry.attempts == 1 else f"{entry.attempts} times"
        return (
            f"run {job.number} was tried {times} and {_ENDED[entry.state]}; "
            f"--retries {entry.attempts} submits it again"
        )

    def _begin(self, todo: ToDo, log: SweepLog) -> None:
        """Save the ledger and log the pruned runs, before anything starts."""
        self.ledger.save()
        for one in todo.pruned:
            log.write(f"run {one.number} cannot work: {one.reason} ({one.label})")
        log.write(f"{len(todo.jobs)} to do of {count_line(self.ledger, self.numbers)}")
        for one in todo.pruned[:_SHOWN_PRUNED]:
            self._print(f"run {one.number} cannot work: {one.reason}")
        more = len(todo.pruned) - _SHOWN_PRUNED
        if more > 0:
            self._print(f"and {more} more cannot work: see {self.spec.folder}/sweep.log")

    def _end(self) -> None:
        """Print the runs that failed or were interrupted, the counts, and the folder."""
        unfinished = [row for row in self._entries() if row[1].state in ("failed", "interrupted")]
        if unfinished:
            self.console.print(run_table(unfinished))
        if self.show_results:
            self._print_results()
        self._print(count_line(self.ledger, self.numbers))
        self._print(f"state and logs: {self.spec.folder}")

    def _print_results(self) -> None:
        """Print what the complete runs measured; of many, how to see it."""
        complete = [entry.folder for _, entry in self._entries() if entry.state == "complete"]
        folders = [folder for folder in complete if folder is not None and Path(folder).is_dir()]
        if len(folders) > _READ_AT_THE_END:  # a thousand take seconds
            self._print(f"{len(folders):,} complete runs: mlenergy show {shlex.quote(str(self.spec.folder))}")
        elif folders and (found := collect(folders)).results:
            print_table(table_of(found, limit=_SHOWN_RESULTS), self.console)

    def _entries(self) -> list[tuple[int, Entry]]:
        return [
            (n, self.ledger.entries[key]) for key, n in self.numbers.items() if key in self.ledger.entries
        ]

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _places(jobs: Sequence[Job], gpus: Sequence[str] | None, slots: int | None) -> Slots:
    """This machine's GPUs; on a CPU the given slots, or by default room for one run at a time."""
    if any(job.device == "cuda" for job in jobs):
        return Slots(gpus or visible_gpu_ids())
    if slots is not None:
        return Slots(unnamed=slots)
    return Slots(unnamed=max((job.processes for job in jobs), default=1), alone=True)
