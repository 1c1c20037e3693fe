"""The search itself: take up what earlier calls measured, then start after start until nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlenergy.diffusion.tune.candidates import Candidate
from mlenergy.diffusion.tune.schedule import Ending, Limits, Step, next_step
from mlenergy.diffusion.tune.starts import Failed, Measured
from mlenergy.diffusion.tune.state import Tried

# What makes a start: candidate, which of its starts (from 1), measured iterations.
Start = Callable[[Candidate, int, int], Measured | Failed]
Earlier = Callable[[Candidate, int, int], Measured | Failed | None]


def take_up(
    candidates: Sequence[Candidate], limits: Limits, earlier: Earlier, retry_failed: bool
) -> list[Tried]:
    """Every candidate with the starts that are there already."""
    return [_take_up(candidate, limits, earlier, retry_failed) for candidate in candidates]


def search(
    tried: Sequence[Tried],
    limits: Limits,
    start: Start,
    elapsed_s: Callable[[], float],
    after: Callable[[Step, Measured | Failed], None] = lambda step, outcome: None,
    before: Callable[[Step], None] = lambda step: None,
) -> Ending:
    """Measure until the front is told apart, or the budget or the number of starts ends.

    Args:
        tried: all candidates; their starts are added.
        limits: how long and how finely.
        start: makes one start and waits for it.
        elapsed_s: how much of the budget is spent.
        after: called with each start's outcome, which `tried` has by then.
        before: called with each start to be made.

    Returns:
        Why it ended.
    """
    while True:
        step = next_step(tried, limits, elapsed_s())
        if not isinstance(step, Step):
            return step
        before(step)
        outcome = start(step.tried.candidate, step.start, limits.iterations(step.start))
        if isinstance(outcome, Failed):
            step.tried.failure = outcome
        else:
            step.tried.starts.append(outcome)
        after(step, outcome)


def _take_up(candidate: Candidate, limits: Limits, earlier: Earlier, retry_failed: bool) -> Tried:
    one = Tried(candidate)
    for number in range(1, limits.rounds + 1):
        found = earlier(candidate, number, limits.iterations(number))
        if isinstance(found, Failed) and not retry_failed:
            one.failure = found
        if not isinstance(found, Measured):
            break
        one.starts.append(found)
    return one
