"""Which combinations can work: planned exactly as the run will plan them, and sized."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.size import FLOPS_PER_BYTE, size_plan
from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    from mlenergy.diffusion.config.args import BenchmarkArgs
    from mlenergy.diffusion.models.spec import ModelSpec
    from mlenergy.diffusion.tune.machine import Machine

_GIB = 1 << 30


@dataclass(frozen=True)
class Pruned:
    """Settings that are not tried, and why."""

    label: str
    reason: str


class Planner:
    """Plans combinations, and keeps the reasons of what cannot work.

    Args:
        model: the model.
        machine: where it would run.
        approximate: keep degrees whose images are not exactly those of one process.
    """

    def __init__(self, model: ModelSpec, machine: Machine, approximate: bool) -> None:
        self._model = model
        self._machine = machine
        self._approximate = approximate
        self.pruned: list[Pruned] = []
        self.guess_reason: str | None = None  # why there are no guesses

    def plan(self, args: BenchmarkArgs, label: str) -> Plan | None:
        """The plan, or None where it is refused."""
        try:
            return make_plan(args, self._model, None, self._machine.device, self._machine.device_name)
        except UserError as error:
            self.pruned.append(Pruned(label, str(error)))
            return None

    def way(self, args: BenchmarkArgs, degrees: Mapping[str, int]) -> tuple[Plan, float | None] | None:
        """Degrees and a batch size that work, fit, and are exact; with the plan's guess, in no unit."""
        named = [f"{name} {degree}" for name, degree in degrees.items() if degree > 1]
        label = f"{', '.join(named) or '1 process'}, batch {args.workload.batch_size}"
        count = math.prod(degrees.values())
        if count > self._machine.processes:
            there = self._machine.processes
            self.pruned.append(
                Pruned(label, f"it takes {count} processes, and there are {there}; see --processes")
            )
            return None
        plan = self.plan(args, label)
        if plan is None:
            return None
        too_large, guess = self._size(plan)
        reason = too_large or self._inexact(plan)
        if reason is not None:
            self.pruned.append(Pruned(label, reason))
            return None
        return plan, guess

    def _inexact(self, plan: Plan) -> str | None:
        reason = None if self._approximate else plan.approximation
        return None if reason is None else f"{reason}; --approximate searches it too"

    def _size(self, plan: Plan) -> tuple[str | None, float | None]:
        """Why it does not fit into memory, and the guess per image: arithmetic and bytes sent."""
        # The estimate is of a run without what makes weights or activations smaller.
        gib = None if plan.optimizations.memory_options else self._machine.gpu_memory_gib
        try:
            way = size_plan(plan, processes=1, gpu_memory_gib=gib).own
        except UserError as error:
            self.guess_reason = str(error)
            return None, None
        sent = way.communication.total_bytes * plan.steps * FLOPS_PER_BYTE / 1e12
        guess = (way.tflops_per_rank + sent) / plan.batch_size
        if way.memory.fits is False:
            needs = (way.memory.peak_bytes + way.memory.context_bytes) / _GIB
            return f"it needs about {needs:.3g} GiB of each GPU's memory, and there are {gib:.3g}", guess
        return None, guess
