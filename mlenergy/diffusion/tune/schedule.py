"""What is started next, and what no longer fits into the budget. Pure but for the figures it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mlenergy.diffusion.executors.job import relative_cost
from mlenergy.diffusion.tune.candidates import Candidate
from mlenergy.diffusion.tune.front import judge, unsettled_pairs
from mlenergy.diffusion.tune.starts import Measured
from mlenergy.diffusion.tune.state import Tried, objectives_of, points_of

# Of the budget, at most so much goes to candidates that were never started while others wait for a
# repetition: a front whose points are not told apart would be worth little.
EXPLORING_SHARE = 0.6
# One start knows nothing of how starts differ.
LEAST_STARTS = 2

Ending = Literal["settled", "rounds", "budget"]


@dataclass(frozen=True)
class Limits:
    """How long and how finely is searched."""

    budget_s: float
    rounds: int  # starts of one candidate at most
    tolerance: float  # half-width of an interval, as a share of its mean, that is fine enough
    first_iters: int  # measured iterations of the first start; each further one has twice as many

    def iterations(self, start: int) -> int:
        """Measured iterations of a start, counted from 1."""
        return int(self.first_iters * 2 ** (start - 1))


@dataclass(frozen=True)
class Step:
    """The next start."""

    tried: Tried
    start: int  # which of the candidate's, from 1
    expected_s: float


def next_step(tried: Sequence[Tried], limits: Limits, spent_s: float) -> Step | Ending:
    """The next start, or why there is none.

    Never-started candidates go first, in their order, until their share of the budget is spent; then
    the contenders that are not told apart, those with the fewest starts first; then what is left.
    """
    new = [one for one in tried if one.is_new]
    again = contenders(tried, limits)
    may_repeat = [one for one in again if len(one.starts) < limits.rounds]
    explore = spent_s < EXPLORING_SHARE * limits.budget_s
    wanted = [*new, *may_repeat] if explore else [*may_repeat, *new]
    expected = pace(tried)
    for one in wanted:
        start = len(one.starts) + 1
        seconds = expected(one.candidate, limits.iterations(start))
        if spent_s + seconds <= limits.budget_s:
            return Step(one, start, seconds)
    if wanted:
        return "budget"
    return "rounds" if again else "settled"


def contenders(tried: Sequence[Tried], limits: Limits) -> list[Tried]:
    """Candidates that more starts could tell apart, or that were started only once; fewest starts first."""
    points = points_of(tried, objectives_of(tried))
    verdicts = judge(points)
    named = {number for pair in unsettled_pairs(points, limits.tolerance) for number in pair}
    named |= {
        one.candidate.number
        for one in tried
        if len(one.starts) < LEAST_STARTS
        and one.candidate.number in verdicts
        and verdicts[one.candidate.number].dominated_by is None
    }
    chosen = [one for one in tried if one.candidate.number in named and one.failure is None]
    return sorted(chosen, key=lambda one: len(one.starts))


def pace(tried: Sequence[Tried]) -> Callable[[Candidate, int], float]:
    """Expected seconds of a start with so many iterations, from the starts so far.

    A candidate's own starts tell it; else those of all that are compiled alike, or of all, scaled by
    the plan's relative cost. 0 where nothing has run yet.
    """
    timed = [(one.candidate, start) for one in tried for start in one.starts if start.wall_s is not None]

    def expected_s(candidate: Candidate, iterations: int) -> float:
        own = [start for other, start in timed if other.number == candidate.number]
        if own:
            return _overhead_s(own) + iterations * _each_s(own)
        alike = [pair for pair in timed if _compiled(pair[0]) == _compiled(candidate)] or timed
        if not alike:
            return 0.0
        work = sum(_cost(other) * start.iterations for other, start in alike)
        rate = sum(start.measured_s for _, start in alike) / work
        return _overhead_s([start for _, start in alike]) + rate * _cost(candidate) * iterations

    return expected_s


def _overhead_s(starts: Sequence[Measured]) -> float:
    """Everything but the measured windows: start, load, warm-up, compiling, saving."""
    return sum((start.wall_s or 0.0) - start.measured_s for start in starts) / len(starts)


def _each_s(starts: Sequence[Measured]) -> float:
    return sum(start.measured_s for start in starts) / sum(start.iterations for start in starts)


def _compiled(candidate: Candidate) -> bool:
    return candidate.plan.optimizations.compile_mode is not None


def _cost(candidate: Candidate) -> float:
    """Of one iteration, in no unit."""
    plan = candidate.plan
    return relative_cost(plan) / (plan.warmup_iters + plan.benchmark_iters)
