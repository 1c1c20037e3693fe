"""Which runs of a sweep can work: planned as the benchmark will plan them, or pruned with the reason."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.environment.device import DeviceType, detect_device
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.sweep.conditions import PROCESSES, REPEAT
from mlenergy.diffusion.sweep.expand import Run
from mlenergy.diffusion.sweep.spec import SweepSpec

Where = Literal["here", "cluster"]
PROG = "mlenergy sweep"


@dataclass(frozen=True)
class Job:
    """A run that the plan accepts."""

    run: Run
    processes: int
    device: DeviceType
    cost: float  # relative: work of all iterations, over the processes that share it
    folder: Path | None  # where its results go; None on a cluster, where a node's GPU names the folder


@dataclass(frozen=True)
class Pruned:
    """A run that cannot work, and why."""

    run: Run
    reason: str


def plan_runs(spec: SweepSpec, runs: Iterable[Run], where: Where) -> tuple[list[Job], list[Pruned]]:
    """Plan every run, in the sweep's order of running.

    Args:
        spec: the sweep, for its filters and order.
        runs: what expand made.
        where: here: on this machine's device; cluster: on nodes with GPUs that this machine need not have.
    """
    jobs: list[Job] = []
    pruned: list[Pruned] = []
    for run in runs:
        try:
            job = plan_run(run, where)
        except UserError as error:
            pruned.append(Pruned(run, str(error)))
            continue
        values = {**run.options, PROCESSES: job.processes, REPEAT: run.repeat}
        if all(condition.holds(values) for condition in spec.filters):
            jobs.append(job)
    return in_order(jobs, spec.order), pruned


def plan_run(run: Run, where: Where) -> Job:
    """Plan one run as the benchmark will.

    Raises:
        UserError: it cannot work.
    """
    args = parse_args(run.argv, PROG)
    if where == "here":
        device, name = _detect(args.device)
    else:
        device, name = ("cpu" if args.device == "cpu" else "cuda"), "unknown"
    model = _model(args.workload.model_id, args.workload.revision)
    plan = make_plan(args, model, None, device, name)
    folder = RunPaths.of(plan).folder if where == "here" else None
    return Job(run, plan.parallel.world_size, device, relative_cost(plan), folder)


def relative_cost(plan: Plan) -> float:
    """How long a run takes against others: pixels x steps x parameters x iterations / processes.

    Only an order: attention's square in the tokens, kernels and communication are left out.
    """
    forwards = 2 if plan.spec.guidance == "classifier-free" and (plan.guidance_scale or 0) > 1 else 1
    work = plan.tokens * plan.steps * forwards * plan.batch_size * (plan.spec.parameters or 1e9)
    return work * (plan.warmup_iters + plan.benchmark_iters) / plan.parallel.world_size


def in_order(jobs: Sequence[Job], order: str) -> list[Job]:
    """As written, or by cost: the cheapest shows results soonest, the costliest first packs GPUs best."""
    if order == "written":
        return list(jobs)
    return sorted(jobs, key=lambda job: job.cost, reverse=order == "costliest")


@functools.cache
def _detect(preference: Literal["auto", "cuda", "mps", "cpu"]) -> tuple[DeviceType, str]:
    return detect_device(preference)


_model = functools.cache(resolve_model)


def visible_gpu_ids() -> list[str]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES would name them."""
    from mlenergy.diffusion.environment.gpus import list_gpus, visible_gpus

    visible = visible_gpus(list_gpus().gpus)
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [entry.strip() for entry in os.environ["CUDA_VISIBLE_DEVICES"].split(",")][: len(visible)]
    # UUIDs, since the driver's and CUDA's own counting can differ.
    return [gpu.uuid for gpu in visible]
