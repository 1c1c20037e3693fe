"""Searches on a machine that is not here: real plans of FLUX.1-dev, figures by a formula."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.measure.starts import StartSummary
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.tune.machine import Machine
from mlenergy.diffusion.tune.options import read_command
from mlenergy.diffusion.tune.space import Candidate, Planner, SearchSpace, axes_of, search_space
from mlenergy.diffusion.tune.trials import Failed, Measured

H200 = Machine("cuda", "NVIDIA H200", 2, 141.0)
FLUX = ["workload:t2i", "--workload.model_id", "black-forest-labs/FLUX.1-dev"]


def space_of(words: Sequence[str], machine: Machine = H200, model: Sequence[str] = FLUX) -> SearchSpace:
    """The search space of `mlenergy tune` with these options."""
    asked = read_command([*words, *model])
    args = parse_args(asked.words)
    spec = resolve_model(args.workload.model_id)
    axes = axes_of(asked, args, machine.processes)
    return search_space(args, axes, Planner(spec, machine, asked.approximate))


def measured(
    seconds: StartSummary,
    joules: StartSummary | None,
    measured_s: float,
    wall_s: float,
    reason: str | None = None,
) -> Measured:
    """A start with these figures."""
    return Measured(
        folder="run/tune/x",
        iterations=seconds.iterations,
        seconds=seconds,
        joules=joules,
        energy_of=None if joules is None else "gpu",
        energy_reason=reason,
        measured_s=measured_s,
        wall_s=wall_s,
        peak_memory_bytes=34_000_000_000,
        peak_memory_reason=None,
        warnings=(),
    )


class Bench:
    """Starts that take no time but move a clock: overhead, then the iterations.

    Args:
        truth: candidate number -> seconds and joules per image; numbers that are missing fail.
        scatter: standard deviation of a start's level, as a share of it; iterations scatter a tenth of it.
        overhead_s: seconds of a start beside its windows.
    """

    def __init__(
        self, truth: dict[int, tuple[float, float]], scatter: float = 0.0, overhead_s: float = 10.0
    ) -> None:
        self.truth = truth
        self.scatter = scatter
        self.overhead_s = overhead_s
        self.now_s = 0.0
        self.made: list[tuple[int, int, int]] = []
        self._chance = random.Random(3)

    def start(self, candidate: Candidate, start: int, iterations: int) -> Measured | Failed:
        self.made.append((candidate.number, start, iterations))
        if candidate.number not in self.truth:
            self.now_s += self.overhead_s
            return Failed("CUDA out of memory", self.overhead_s)
        seconds, joules = (self._sample(level, iterations) for level in self.truth[candidate.number])
        measured_s = seconds.mean * iterations * candidate.plan.batch_size
        self.now_s += self.overhead_s + measured_s
        return measured(seconds, joules, measured_s, self.overhead_s + measured_s)

    def elapsed_s(self) -> float:
        return self.now_s

    def _sample(self, level: float, iterations: int) -> StartSummary:
        here = level * self._chance.gauss(1, self.scatter)
        values = [here * self._chance.gauss(1, self.scatter / 10) for _ in range(iterations)]
        return StartSummary(iterations, statistics.fmean(values), statistics.stdev(values))
