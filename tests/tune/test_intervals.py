import math
import random
import statistics

import pytest

from mlenergy.diffusion.measure.starts import Spread, StartSummary, interval_of
from mlenergy.diffusion.measure.statistics import summarize
from mlenergy.diffusion.tune.pareto import spreads_of


def start_of(values: list[float]) -> StartSummary:
    return StartSummary(
        len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
    )


def test_one_start_has_its_iterations_interval() -> None:
    values = [1.0, 1.2, 1.1, 0.9]
    interval, known = interval_of([start_of(values)], None), summarize(values)
    assert interval.mean == pytest.approx(known.mean)
    assert (interval.low, interval.high) == pytest.approx((known.ci95_low, known.ci95_high))


def test_the_scatter_between_starts_counts_where_it_is_wider() -> None:
    starts = [StartSummary(3, 1.0, 0.001), StartSummary(6, 1.1, 0.001)]
    spread = spreads_of({1: starts, 2: [StartSummary(3, 2.0, 0.1)]}).of(2)
    assert spread is not None
    assert (spread.relative, spread.freedom) == (pytest.approx(0.1 / math.sqrt(2) / 1.05), 1)
    interval = interval_of(starts, spread)
    # Student's t for one degree of freedom is 12.706.
    assert interval.half_width == pytest.approx(12.706 * spread.relative * 1.05 / math.sqrt(2), rel=1e-4)
    # It holds for a candidate with one start too, whose iterations alone look more certain.
    assert interval_of([StartSummary(3, 2.0, 0.001)], Spread(0.05, 10)).half_width == pytest.approx(
        2.228 * 0.1, rel=1e-3
    )


def test_steady_starts_leave_the_iterations_scatter() -> None:
    starts = [StartSummary(3, 1.0, 0.2), StartSummary(3, 1.0, 0.2)]
    interval = interval_of(starts, spreads_of({1: starts}).of(1))
    # Four degrees of freedom: 2.776.
    assert interval.half_width == pytest.approx(2.776 * math.sqrt(2 * 0.04 / 3) / 2, rel=1e-3)


def test_what_is_not_known_is_not_narrow() -> None:
    interval = interval_of([StartSummary(1, 1.0, None)], None)
    assert (interval.low, interval.high) == (0.0, math.inf)
    assert spreads_of({1: [StartSummary(3, 1.0, 0.1)]}).of(1) is None
    with pytest.raises(ValueError, match="no start"):
        interval_of([], None)


def test_the_interval_holds_the_true_mean_about_95_times_in_100() -> None:
    chance = random.Random(7)
    hits, trials = 0, 400
    for _ in range(trials):
        candidates = []
        for true in (1.0, 3.0, 10.0):
            levels = [true * chance.gauss(1, 0.05) for _ in range(3)]
            candidates.append(
                [start_of([chance.gauss(level, 0.02 * true) for _ in range(4)]) for level in levels]
            )
        interval = interval_of(candidates[0], spreads_of(dict(enumerate(candidates))).of(0))
        hits += interval.low <= 1.0 <= interval.high
    assert 0.92 < hits / trials < 0.99


def test_one_disturbed_start_widens_its_own_candidate_only() -> None:
    quiet = {n: [StartSummary(3, 1.0 + n, 0.01), StartSummary(6, 1.005 * (1.0 + n), 0.01)] for n in range(4)}
    disturbed = {**quiet, 4: [StartSummary(3, 9.0, 0.01), StartSummary(6, 1.0, 0.01)]}
    spreads = spreads_of(disturbed)
    assert list(spreads.own) == [4]
    assert spreads.common == spreads_of(quiet).common
    assert interval_of(disturbed[4], spreads.of(4)).half_width > 5
    assert interval_of(disturbed[0], spreads.of(0)).half_width < 0.05
    # One that has a single start has nothing else to go by than what is common.
    assert spreads.of(99) == spreads.common


def test_what_chance_explains_does_not_stand_out() -> None:
    chance = random.Random(5)
    found = 0
    for _ in range(300):
        pairs = {n: [StartSummary(3, chance.gauss(1, 0.02), 0.0) for _ in range(2)] for n in range(5)}
        found += bool(spreads_of(pairs).own)
    assert found < 12
