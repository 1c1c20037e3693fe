"""The order of starts, what is repeated, and where the budget ends, on a formula in place of a machine."""

from __future__ import annotations

import pytest
from tune_bench import Bench, space_of

from mlenergy.diffusion.tune.pareto import judge
from mlenergy.diffusion.tune.search import EXPLORING_SHARE, Limits, earlier_trials, pace, search
from mlenergy.diffusion.tune.space import Candidate
from mlenergy.diffusion.tune.trials import Failed, Measured, Trial, objectives_of, points_of

LIMITS = Limits(budget_s=10_000, rounds=4, tolerance=0.01, first_iters=3)


@pytest.fixture(scope="module")
def five() -> tuple[Candidate, ...]:
    words = ["--degrees", "ulysses=2", "ulysses=1", "--batch_sizes", "1", "2", "4"]
    found = space_of([*words, "--attention_backends", "cudnn", "--compile", "off"]).candidates
    assert len(found) == 6
    return found[:5]


def front_of(trials: list[Trial]) -> set[int]:
    verdicts = judge(points_of(trials, objectives_of(trials)))
    return {number for number, verdict in verdicts.items() if verdict.on_front}


def test_contenders_are_repeated_with_twice_the_iterations_and_losers_are_not(
    five: tuple[Candidate, ...],
) -> None:
    truth = {1: (1.0, 300.0), 2: (2.0, 200.0), 3: (2.02, 201.0), 4: (5.0, 900.0), 5: (6.0, 800.0)}
    bench, trials = Bench(truth, scatter=0.004), [Trial(one) for one in five]
    ended = search(trials, LIMITS, bench.start, bench.elapsed_s)
    assert bench.made[:5] == [(n, 1, 3) for n in range(1, 6)]
    assert all(iterations == 3 * 2 ** (start - 1) for _, start, iterations in bench.made)
    starts = {n: sum(1 for number, _, _ in bench.made if number == n) for n in truth}
    # 4 and 5 are far behind; 1 is alone, and is started once more for the scatter between starts.
    assert (starts[1], starts[4], starts[5]) == (2, 1, 1)
    assert starts[2] > 2 or starts[3] > 2
    assert ended in ("settled", "rounds")
    assert front_of(trials) <= {1, 2, 3}
    assert 1 in front_of(trials)


def test_it_ends_when_the_front_is_told_apart(five: tuple[Candidate, ...]) -> None:
    truth = {1: (1.0, 500.0), 2: (2.0, 400.0), 3: (3.0, 300.0), 4: (4.0, 200.0), 5: (4.1, 510.0)}
    bench, trials = Bench(truth, scatter=0.001), [Trial(one) for one in five]
    assert search(trials, LIMITS, bench.start, bench.elapsed_s) == "settled"
    assert len(bench.made) == 9
    assert front_of(trials) == {1, 2, 3, 4}


def test_what_cannot_be_told_apart_ends_after_its_rounds(five: tuple[Candidate, ...]) -> None:
    bench, trials = Bench({1: (1.0, 100.0), 2: (1.0, 100.0)}, scatter=0.1), [Trial(one) for one in five[:2]]
    assert search(trials, LIMITS, bench.start, bench.elapsed_s) == "rounds"
    assert [len(one.starts) for one in trials] == [4, 4]
    # A tolerance that they are known to is enough.
    bench, trials = Bench({1: (1.0, 100.0), 2: (1.0, 100.0)}, scatter=0.001), [Trial(one) for one in five[:2]]
    assert search(trials, LIMITS, bench.start, bench.elapsed_s) == "settled"
    assert len(bench.made) == 4


def test_no_start_goes_over_the_budget_by_what_is_expected(five: tuple[Candidate, ...]) -> None:
    truth = dict.fromkeys(range(1, 6), (1.0, 100.0))
    limits = Limits(budget_s=46, rounds=4, tolerance=0.0001, first_iters=3)
    bench, trials = Bench(truth, scatter=0.05), [Trial(one) for one in five]
    assert search(trials, limits, bench.start, bench.elapsed_s) == "budget"
    assert bench.now_s <= limits.budget_s
    assert 0 < sum(one.is_new for one in trials) < 5


def test_a_part_of_the_budget_is_kept_for_repetitions(five: tuple[Candidate, ...]) -> None:
    truth = dict.fromkeys(range(1, 6), (1.0, 100.0))
    limits = Limits(budget_s=70, rounds=4, tolerance=0.0001, first_iters=2)
    bench, trials = Bench(truth, scatter=0.05), [Trial(one) for one in five]
    search(trials, limits, bench.start, bench.elapsed_s)
    first = next(n for n, (_, start, _) in enumerate(bench.made) if start > 1)
    clock = Bench(truth, scatter=0.05)
    for number, start, iterations in bench.made[:first]:
        assert clock.now_s < EXPLORING_SHARE * limits.budget_s
        clock.start(five[number - 1], start, iterations)
    assert clock.now_s >= EXPLORING_SHARE * limits.budget_s
    assert any(one.is_new for one in trials)


def test_the_first_start_is_made_whatever_it_takes(five: tuple[Candidate, ...]) -> None:
    bench, trials = Bench({1: (1.0, 100.0)}, overhead_s=500), [Trial(one) for one in five]
    assert search(trials, Limits(60, 4, 0.01, 3), bench.start, bench.elapsed_s) == "budget"
    assert bench.made == [(1, 1, 3)]


def test_what_fails_is_left_and_the_search_goes_on(five: tuple[Candidate, ...]) -> None:
    bench, trials = Bench({2: (1.0, 100.0)}), [Trial(one) for one in five[:3]]
    said: list[tuple[int, str]] = []
    ended = search(
        trials,
        LIMITS,
        bench.start,
        bench.elapsed_s,
        lambda step, outcome: said.append((step.trial.candidate.number, type(outcome).__name__)),
    )
    assert ended == "settled"
    assert said == [(1, "Failed"), (2, "Measured"), (3, "Failed"), (2, "Measured")]
    assert trials[0].failure == Failed("CUDA out of memory", 10.0)
    assert front_of(trials) == {2}


def test_expected_seconds_come_from_earlier_starts(five: tuple[Candidate, ...]) -> None:
    bench, trials = Bench({1: (2.0, 100.0)}), [Trial(one) for one in five]
    assert pace(trials)(five[0], 3) == 0.0
    outcome = bench.start(five[0], 1, 3)
    assert isinstance(outcome, Measured)
    trials[0].starts.append(outcome)
    batch = five[0].plan.batch_size
    assert pace(trials)(five[0], 6) == pytest.approx(10 + 6 * 2.0 * batch, abs=1.0)
    # Another candidate's: the same overhead, its own share of the plan's relative cost.
    other = next(one for one in five if one.plan.batch_size < batch)
    assert 10 < pace(trials)(other, 6) < pace(trials)(five[0], 6)


def test_earlier_starts_are_taken_up(five: tuple[Candidate, ...]) -> None:
    bench = Bench({1: (1.0, 100.0), 2: (9.0, 900.0)})
    kept = {(n, s): bench.start(five[n - 1], s, 3) for n, s in ((1, 1), (1, 2), (2, 1), (3, 1))}

    def earlier(candidate: Candidate, start: int, iterations: int) -> Measured | Failed | None:
        assert iterations == LIMITS.iterations(start)
        return kept.get((candidate.number, start))

    trials = earlier_trials(five[:3], LIMITS, earlier, retry_failed=False)
    assert [len(one.starts) for one in trials] == [2, 1, 0]
    bench.made.clear()
    assert search(trials, LIMITS, bench.start, bench.elapsed_s) == "settled"
    assert bench.made == []
    again = earlier_trials(five[:3], LIMITS, earlier, retry_failed=True)
    search(again, LIMITS, bench.start, bench.elapsed_s)
    assert bench.made == [(3, 1, 3)]
