"""Seconds and joules that the runs of a sweep would take, by the forecasts of their plans."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mlenergy.diffusion.config.args import read_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.forecast.cards import card_named
from mlenergy.diffusion.forecast.predict import forecast_of
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.report.lines import energy, number

_PROG = "mlenergy sweep"


@dataclass
class Total:
    """Sums over the runs that a forecast can be made of, and the reasons against the others.

    low_s, high_s: sums of the runs' bounds; errors of one model go the same way, so they do not cancel out.
    """

    gpu: str
    runs: int = 0
    duration_s: float = 0.0
    low_s: float = 0.0
    high_s: float = 0.0
    gpu_s: float = 0.0  # GPUs times seconds
    energy_j: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def lines(self) -> Iterator[str]:
        """The totals in words."""
        if self.runs:
            yield (
                f"forecast for {self.gpu}: {_duration(self.duration_s)} ({_duration(self.low_s)} to "
                f"{_duration(self.high_s)}) in the iterations of {self.runs} runs one after another, "
                f"{number(self.gpu_s / 3600)} GPU hours, {energy(self.energy_j)}; loading is extra"
            )
        for reason, runs in self.reasons.items():
            yield f"without a forecast: {runs} {'run' if runs == 1 else 'runs'}: {reason}"


def total_of(jobs: Iterable[Job], gpu: str) -> Total:
    """The forecast of all iterations of some runs, warm-up included, on GPUs of one kind.

    Raises:
        UserError: no data sheet of the GPU is known.
    """
    total = Total(card_named(gpu).name)
    for job in jobs:
        args = read_args(job.argv, _PROG)
        try:
            plan = make_plan(args, _model(args.workload.model_id, args.workload.revision), None, "cuda", gpu)
            found = forecast_of(plan, gpu)
        except UserError as error:
            total.reasons[str(error)] += 1
            continue
        iterations = plan.warmup_iters + plan.benchmark_iters
        total.runs += 1
        total.duration_s += iterations * found.duration_s.value
        total.low_s += iterations * found.duration_s.low
        total.high_s += iterations * found.duration_s.high
        total.gpu_s += iterations * found.duration_s.value * plan.parallel.world_size
        if found.energy_per_output_j is not None:
            total.energy_j += iterations * plan.batch_size * found.energy_per_output_j.value
    return total


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{number(seconds)} s"
    return f"{number(seconds / 60)} min" if seconds < 7200 else f"{number(seconds / 3600)} h"


# A sweep names few models and many runs.
_model = functools.cache(resolve_model)
