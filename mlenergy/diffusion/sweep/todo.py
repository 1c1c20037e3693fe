"""What is left of a sweep: without what is complete, what cannot work and what the filters leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlenergy.diffusion import __version__
from mlenergy.diffusion.environment.device import detect_device
from mlenergy.diffusion.executors.job import Job, Pruned, Where, plan_runs
from mlenergy.diffusion.executors.ledger import Entry, Ledger, State
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete
from mlenergy.diffusion.sweep.expand import Run
from mlenergy.diffusion.sweep.spec import SweepSpec


@dataclass(frozen=True)
class ToDo:
    """Jobs in the order of running, and the runs that cannot work."""

    jobs: list[Job]
    pruned: list[Pruned]


def has_result(folder: Path) -> bool:
    """Whether a result folder is complete."""
    return is_complete(RunPaths(folder, model_slug=""))


def what_is_left(spec: SweepSpec, runs: Sequence[Run], ledger: Ledger, where: Where, resume: bool) -> ToDo:
    """Sort a sweep's runs; the ledger then has an entry for each, not yet saved.

    Args:
        spec: the sweep.
        runs: what expand made of it.
        ledger: what earlier invocations left.
        where: see plan_runs.
        resume: leave complete results alone.
    """
    place = " ".join(detect_device()) if where == "here" else "cluster"
    planned_on = f"{place}, {__version__}"
    left = [run for run in runs if not _is_settled(ledger.entries.get(run.key), planned_on, resume)]
    planned, pruned = plan_runs(spec, left, where)
    accepted = {job.run.key for job in planned}
    refused = {one.run.key: one.reason for one in pruned}
    for run in left:
        entry = ledger.entries.get(run.key) or Entry(argv=run.argv, label=run.label)
        state: State = "pruned" if run.key in refused else "planned" if run.key in accepted else "filtered"
        ledger.entries[run.key] = replace(entry, label=run.label, state=state, message=refused.get(run.key))
    jobs = [job for job in planned if not _take_up(job, ledger, planned_on, resume)]
    return ToDo(jobs, pruned)


def refuse(todo: ToDo, ledger: Ledger, reasons: dict[str, str]) -> ToDo:
    """Take jobs out that this executor cannot run; run key -> why."""
    out = [job for job in todo.jobs if job.run.key in reasons]
    for job in out:
        ledger.update(job.run.key, state="pruned", message=reasons[job.run.key])
    kept = [job for job in todo.jobs if job.run.key not in reasons]
    return ToDo(kept, [*todo.pruned, *(Pruned(job.run, reasons[job.run.key]) for job in out)])


def hold_back(
    todo: ToDo, ledger: Ledger, earlier: Mapping[str, Entry], retries: int
) -> tuple[ToDo, list[Job]]:
    """Take out the runs that were tried again `retries` times and still have no result; their records stay.

    Args:
        todo: what is left.
        ledger: gets the records of these runs back.
        earlier: the records before `what_is_left`.
        retries: how often a run that failed or was interrupted may be tried again.

    Returns:
        what is left to do, and the jobs taken out.
    """
    spent = {
        key
        for key, entry in earlier.items()
        if entry.state in ("failed", "interrupted") and entry.attempts > retries
    }
    held = [job for job in todo.jobs if job.run.key in spent]
    for job in held:
        ledger.entries[job.run.key] = earlier[job.run.key]
    return replace(todo, jobs=[job for job in todo.jobs if job.run.key not in spent]), held


def _is_settled(entry: Entry | None, planned_on: str, resume: bool) -> bool:
    """Complete or in Slurm's queue, and planned for the same device: not planned again, which takes time."""
    if entry is None or entry.planned_on != planned_on:
        return False
    if entry.state == "submitted" or (entry.state == "running" and entry.slurm_task is not None):
        return True
    if not resume or entry.state != "complete":
        return False
    return entry.folder is None or has_result(Path(entry.folder))


def _take_up(job: Job, ledger: Ledger, planned_on: str, resume: bool) -> bool:
    """Bring the job's entry in line; whether a result of it is there already, whoever made it."""
    folder = str(job.folder) if job.folder else None
    complete = resume and job.folder is not None and has_result(job.folder)
    ledger.update(
        job.run.key,
        state="complete" if complete else "planned",
        processes=job.processes,
        folder=folder,
        planned_on=planned_on,
    )
    return complete
