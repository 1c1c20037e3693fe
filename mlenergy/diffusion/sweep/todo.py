"""Runs of a sweep that are left: planned, and neither complete nor filtered out nor unable to work."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mlenergy.diffusion.config.args import read_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.environment.device import DeviceType, Preference, detect_device
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.job import Job, has_result
from mlenergy.diffusion.executors.ledger import Entry, Ledger, State
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.sweep.conditions import PROCESSES, REPEAT
from mlenergy.diffusion.sweep.expand import Run
from mlenergy.diffusion.sweep.spec import SweepSpec
from mlenergy.diffusion.version import __version__

# here: planned for this machine's device; cluster: for nodes with GPUs that this machine need not have.
Where = Literal["here", "cluster"]
_PROG = "mlenergy sweep"


@dataclass(frozen=True)
class Pruned:
    """A run that cannot work, and the reason."""

    number: int
    label: str
    key: str
    reason: str


@dataclass(frozen=True)
class ToDo:
    """Jobs in the order of running, and the runs that cannot work."""

    jobs: list[Job]
    pruned: list[Pruned]


def plan_runs(spec: SweepSpec, runs: Iterable[Run], where: Where) -> ToDo:
    """Plan every run as the benchmark will, apply the sweep's filters, and put the jobs in its order."""
    jobs: list[Job] = []
    pruned: list[Pruned] = []
    for run in runs:
        try:
            job = _plan_run(run, where)
        except UserError as error:
            pruned.append(Pruned(run.number, run.label, run.key, str(error)))
            continue
        values = {**run.options, PROCESSES: job.processes, REPEAT: run.repeat}
        if all(condition.holds(values) for condition in spec.filters):
            jobs.append(job)
    if spec.order != "written":
        # The cheapest first shows results soonest, the costliest first packs GPUs best.
        jobs.sort(key=lambda job: job.cost, reverse=spec.order == "costliest")
    return ToDo(jobs, pruned)


def what_is_left(spec: SweepSpec, runs: Sequence[Run], ledger: Ledger, where: Where, resume: bool) -> ToDo:
    """Plan what is not settled yet; the ledger then has an entry for each run, not yet saved.

    Args:
        spec: the sweep.
        runs: what expand made of it.
        ledger: what earlier calls left.
        where: the device to plan for.
        resume: leave complete results alone.
    """
    place = " ".join(detect_device()) if where == "here" else "cluster"
    planned_on = f"{place}, {__version__}"
    left = [run for run in runs if not _is_settled(ledger.entries.get(run.key), planned_on, resume)]
    planned = plan_runs(spec, left, where)
    accepted = {job.key for job in planned.jobs}
    reasons = {one.key: one.reason for one in planned.pruned}
    for run in left:
        entry = ledger.entries.get(run.key) or Entry(argv=run.argv, label=run.label)
        state: State = "pruned" if run.key in reasons else "planned" if run.key in accepted else "filtered"
        ledger.entries[run.key] = replace(entry, label=run.label, state=state, message=reasons.get(run.key))
    jobs = []
    for job in planned.jobs:
        # A result counts whoever made it.
        complete = resume and job.folder is not None and has_result(job.folder)
        ledger.update(
            job.key,
            state="complete" if complete else "planned",
            processes=job.processes,
            folder=str(job.folder) if job.folder else None,
            planned_on=planned_on,
        )
        if not complete:
            jobs.append(job)
    return replace(planned, jobs=jobs)


def prune(todo: ToDo, ledger: Ledger, reasons: Mapping[str, str]) -> ToDo:
    """Take jobs out that this executor cannot run; job key -> reason."""
    pruned = list(todo.pruned)
    for job in todo.jobs:
        if job.key in reasons:
            ledger.update(job.key, state="pruned", message=reasons[job.key])
            pruned.append(Pruned(job.number, job.label, job.key, reasons[job.key]))
    return ToDo([job for job in todo.jobs if job.key not in reasons], pruned)


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
        What is left to do, and the jobs taken out.
    """
    spent = {
        key
        for key, entry in earlier.items()
        if entry.state in ("failed", "interrupted") and entry.attempts > retries
    }
    held = [job for job in todo.jobs if job.key in spent]
    for job in held:
        ledger.entries[job.key] = earlier[job.key]
    return replace(todo, jobs=[job for job in todo.jobs if job.key not in spent]), held


def _plan_run(run: Run, where: Where) -> Job:
    args = read_args(run.argv, _PROG)
    if where == "here":
        device, name = _detect(args.device)
    else:
        device, name = ("cpu" if args.device == "cpu" else "cuda"), "unknown"
    plan = make_plan(args, _model(args.workload.model_id, args.workload.revision), None, device, name)
    folder = RunPaths.of(plan).folder if where == "here" else None
    return Job.of(plan, run.argv, run.label, run.number, folder)


@functools.cache
def _detect(preference: Preference) -> tuple[DeviceType, str]:
    return detect_device(preference)


# A sweep names few models and many runs.
_model = functools.cache(resolve_model)


def _is_settled(entry: Entry | None, planned_on: str, resume: bool) -> bool:
    """Complete or in Slurm's queue, and planned for the same device: not planned again, which takes time."""
    if entry is None or entry.planned_on != planned_on:
        return False
    if entry.state == "submitted" or (entry.state == "running" and entry.slurm_task is not None):
        return True
    if not resume or entry.state != "complete":
        return False
    return entry.folder is None or has_result(Path(entry.folder))
