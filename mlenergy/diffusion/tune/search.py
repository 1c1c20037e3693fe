"""The search: continue from what earlier calls measured, then start after start until nothing is left to do.

`next_step` decides what is started next, from the figures alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mlenergy.diffusion.executors.job import relative_cost
from mlenergy.diffusion.tune.pareto import judge, unsettled_pairs
from mlenergy.diffusion.tune.space import Candidate
from mlenergy.diffusion.tune.trials import Failed, Measured, Trial, objectives_of, points_of

# Of the budget, at most so much goes to candidates that were never started while others wait for a
# repetition: a front whose points do not differ significantly would be worth little.
EXPLORING_SHARE = 0.6
# One start tells nothing about the scatter between starts.
LEAST_STARTS = 2

Ending = Literal["settled", "rounds", "budget"]
# Both take a candidate, which of its starts it is (from 1), and the measured iterations of that start.
MakeStart = Callable[[Candidate, int, int], Measured | Failed]
EarlierStart = Callable[[Candidate, int, int], Measured | Failed | None]


@dataclass(frozen=True)
class Limits:
    """Duration and precision of a search."""

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

    trial: Trial
    start: int  # which of the candidate's, from 1
    expected_s: float


def earlier_trials(
    candidates: Sequence[Candidate], limits: Limits, earlier: EarlierStart, retry_failed: bool
) -> list[Trial]:
    """Every candidate with the starts that earlier calls have made."""
    trials = []
    for candidate in candidates:
        trial = Trial(candidate)
        trials.append(trial)
        for number in range(1, limits.rounds + 1):
            found = earlier(candidate, number, limits.iterations(number))
            if isinstance(found, Failed) and not retry_failed:
                trial.failure = found
            if not isinstance(found, Measured):
                break
            trial.starts.append(found)
    return trials


def search(
    trials: Sequence[Trial],
    limits: Limits,
    start: MakeStart,
    elapsed_s: Callable[[], float],
    after: Callable[[Step, Measured | Failed], None] = lambda step, outcome: None,
    before: Callable[[Step], None] = lambda step: None,
) -> Ending:
    """Measure until all contenders differ significantly, or the budget or the number of starts ends.

    Args:
        trials: all candidates; their starts are added.
        limits: duration and precision.
        start: makes one start and waits for it.
        elapsed_s: how much of the budget is spent.
        after: called with each start's outcome, which `trials` has by then.
        before: called with each start to be made.

    Returns:
        The reason why it ended.
    """
    while True:
        step = next_step(trials, limits, elapsed_s())
        if not isinstance(step, Step):
            return step
        before(step)
        outcome = start(step.trial.candidate, step.start, limits.iterations(step.start))
        if isinstance(outcome, Failed):
            step.trial.failure = outcome
        else:
            step.trial.starts.append(outcome)
        after(step, outcome)


def next_step(trials: Sequence[Trial], limits: Limits, spent_s: float) -> Step | Ending:
    """The next start, or the reason why there is none.

    Never-started candidates go first, in their order, until their share of the budget is spent; then
    the contenders that do not differ significantly, those with the fewest starts first; then the rest.
    """
    new = [trial for trial in trials if trial.is_new]
    again = contenders(trials, limits)
    may_repeat = [trial for trial in again if len(trial.starts) < limits.rounds]
    explore = spent_s < EXPLORING_SHARE * limits.budget_s
    wanted = [*new, *may_repeat] if explore else [*may_repeat, *new]
    expected = pace(trials)
    for trial in wanted:
        start = len(trial.starts) + 1
        seconds = expected(trial.candidate, limits.iterations(start))
        if spent_s + seconds <= limits.budget_s:
            return Step(trial, start, seconds)
    if wanted:
        return "budget"
    return "rounds" if again else "settled"


def contenders(trials: Sequence[Trial], limits: Limits) -> list[Trial]:
    """Candidates that more starts could separate, or that have only one; those with the fewest first."""
    points = points_of(trials, objectives_of(trials))
    verdicts = judge(points)
    named = {number for pair in unsettled_pairs(points, limits.tolerance) for number in pair}
    named |= {
        trial.candidate.number
        for trial in trials
        if len(trial.starts) < LEAST_STARTS
        and trial.candidate.number in verdicts
        and verdicts[trial.candidate.number].dominated_by is None
    }
    chosen = [trial for trial in trials if trial.candidate.number in named and trial.failure is None]
    return sorted(chosen, key=lambda trial: len(trial.starts))


def pace(trials: Sequence[Trial]) -> Callable[[Candidate, int], float]:
    """Expected seconds of a start with a number of iterations, from the starts so far.

    From a candidate's own starts; else from those of all that are compiled alike, or of all, scaled by
    the plan's relative cost. 0 where nothing has run yet.
    """
    timed = [
        (trial.candidate, start) for trial in trials for start in trial.starts if start.wall_s is not None
    ]

    def expected_s(candidate: Candidate, iterations: int) -> float:
        own = [start for other, start in timed if other.number == candidate.number]
        if own:
            each_s = sum(start.measured_s for start in own) / sum(start.iterations for start in own)
            return _overhead_s(own) + iterations * each_s
        alike = [pair for pair in timed if _is_compiled(pair[0]) == _is_compiled(candidate)] or timed
        if not alike:
            return 0.0
        work = sum(_cost(other) * start.iterations for other, start in alike)
        rate = sum(start.measured_s for _, start in alike) / work
        return _overhead_s([start for _, start in alike]) + rate * _cost(candidate) * iterations

    return expected_s


def _overhead_s(starts: Sequence[Measured]) -> float:
    """Mean seconds outside of the measured windows: start, load, warm-up, compiling, saving."""
    return sum((start.wall_s or 0.0) - start.measured_s for start in starts) / len(starts)


def _is_compiled(candidate: Candidate) -> bool:
    return candidate.plan.optimizations.compile_mode is not None


def _cost(candidate: Candidate) -> float:
    """Relative cost of one iteration, in no unit."""
    plan = candidate.plan
    return relative_cost(plan) / (plan.warmup_iters + plan.benchmark_iters)
