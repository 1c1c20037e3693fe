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
_J_PER_KWH = 3.6e6


@dataclass
class Total:
    """Sums over the runs that a forecast can be made of, and the reasons against the others.

    low_s, high_s: sums of the runs' bounds; errors of one model go the same way, so they do not cancel out.
    without_energy: runs of which no joules can be forecast.
    """

    gpu: str  # short name
    runs: int = 0
    duration_s: float = 0.0
    low_s: float = 0.0
    high_s: float = 0.0
    gpu_s: float = 0.0  # GPUs times seconds
    most_gpus: int = 0  # of one run
    energy_j: float = 0.0
    without_energy: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def lines(self) -> Iterator[str]:
        """The totals in words."""
        if self.runs:
            yield (
                f"forecast for {self.gpu}: {_duration(self.duration_s)} ({_duration(self.low_s)} to "
                f"{_duration(self.high_s)}) in the iterations of {_runs(self.runs)} one after another, "
                f"{number(self.gpu_s / 3600)} GPU hours{self._shared()}, {self._energy()}; loading is extra"
            )
        for reason, runs in self.reasons.items():
            yield f"without a forecast: {_runs(runs)}: {reason}"

    @classmethod
    def on(cls, gpu: str) -> Total:
        """No runs yet, on GPUs of this kind.

        Raises:
            UserError: no data sheet of the GPU is known.
        """
        return cls(card_named(gpu).name)

    def add(self, jobs: Iterable[Job]) -> None:
        """Add all iterations of some runs, warm-up included."""
        for job in jobs:
            args = read_args(job.argv, _PROG)
            model = _model(args.workload.model_id, args.workload.revision)
            try:
                plan = make_plan(args, model, None, "cuda", self.gpu)
                found = forecast_of(plan, self.gpu)
            except UserError as error:
                self.reasons[str(error)] += 1
                continue
            iterations = plan.warmup_iters + plan.benchmark_iters
            self.runs += 1
            self.duration_s += iterations * found.duration_s.value
            self.low_s += iterations * found.duration_s.low
            self.high_s += iterations * found.duration_s.high
            self.gpu_s += iterations * found.duration_s.value * plan.parallel.world_size
            self.most_gpus = max(self.most_gpus, plan.parallel.world_size)
            if found.energy_per_output_j is None:
                self.without_energy += 1
            else:
                self.energy_j += iterations * plan.batch_size * found.energy_per_output_j.value

    def _shared(self) -> str:
        """Hours that so many GPUs take which are never idle; nothing where every run takes one."""
        if self.most_gpus < 2:
            return ""
        return f" (with {self.most_gpus} GPUs all busy {_duration(self.gpu_s / self.most_gpus)})"

    def _energy(self) -> str:
        """Joules, and kWh of many; with the number of runs that are not in them."""
        if self.without_energy == self.runs:
            return "joules not known"
        text = energy(self.energy_j)
        if self.energy_j >= _J_PER_KWH:
            text += f" ({number(self.energy_j / _J_PER_KWH)} kWh)"
        return text + (f" without {_runs(self.without_energy)}" if self.without_energy else "")


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{number(seconds)} s"
    return f"{number(seconds / 60)} min" if seconds < 7200 else f"{number(seconds / 3600)} h"


# A sweep names few models and many runs.
_model = functools.cache(resolve_model)
