"""One run to be started: its command line, the processes it needs and the folder of its results."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.environment.device import DeviceType
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete


@dataclass(frozen=True)
class Job:
    """A run whose plan is accepted."""

    argv: tuple[str, ...]  # the benchmark's command line
    label: str  # for people
    number: int  # from 1, in the caller's own counting; shown, and part of file names
    processes: int
    device: DeviceType
    cost: float  # relative, see `relative_cost`
    folder: Path | None  # of its results; None on a cluster, where a node's GPU names the folder

    @classmethod
    def of(cls, plan: Plan, argv: Sequence[str], label: str, number: int, folder: Path | None) -> Job:
        """The job that executes a plan."""
        return cls(
            argv=tuple(argv),
            label=label,
            number=number,
            processes=plan.parallel.world_size,
            device=plan.device,
            cost=relative_cost(plan),
            folder=folder,
        )

    @functools.cached_property
    def key(self) -> str:
        """See `key_of`."""
        return key_of(self.argv)


def key_of(argv: Sequence[str]) -> str:
    """The name of a run in a ledger: equal for equal command lines."""
    return hashlib.sha256("\0".join(argv).encode()).hexdigest()[:16]


def relative_cost(plan: Plan) -> float:
    """Duration of a run relative to others: pixels x steps x parameters x iterations / processes.

    Good for an order only: attention's square in the tokens, kernels and communication are left out.
    """
    forwards = 2 if plan.runs_guidance_batch else 1
    work = plan.tokens * plan.steps * forwards * plan.batch_size * (plan.spec.parameters or 1e9)
    return work * (plan.warmup_iters + plan.benchmark_iters) / plan.parallel.world_size


def has_result(folder: Path) -> bool:
    """True where the folder holds a complete result."""
    return is_complete(RunPaths(folder, model_slug=""))
