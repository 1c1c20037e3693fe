"""Energy between any two moments against numpy's integrals, and the moments at which a counter moved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlenergy.diffusion.measure.energy.curves import CounterRead, Curve, Sample, Track

WATTS = st.floats(0, 1000)
GAPS_S = st.floats(0.01, 2)


@st.composite
def steps_of_power(draw):
    """Moments at which the power changes, and the power from each on."""
    gaps = draw(st.lists(GAPS_S, min_size=1, max_size=20))
    times_s = np.concatenate([[100.0], 100.0 + np.cumsum(gaps)])
    return times_s, np.array([draw(WATTS) for _ in times_s])


def moments(draw, times_s):
    begin_s, end_s = sorted(draw(st.floats(times_s[0], times_s[-1])) for _ in range(2))
    return begin_s, end_s


@given(steps_of_power(), st.data())
def test_power_that_changes_where_it_is_read_integrates_exactly(steps, data):
    times_s, watts = steps
    begin_s, end_s = moments(data.draw, times_s)
    track = Track(samples=[Sample(t, w, None, None, None) for t, w in zip(times_s, watts, strict=True)])
    # The exact integral, step by step: power × the seconds that the step shares with the two moments.
    shared_s = np.minimum(times_s[1:], end_s) - np.maximum(times_s[:-1], begin_s)
    exact_j = float(np.sum(watts[:-1] * np.clip(shared_s, 0, None)))
    assert track.sampled_j(begin_s, end_s) == pytest.approx(exact_j, rel=1e-6, abs=1e-6)


@given(steps_of_power(), st.data())
def test_a_curve_is_linear_between_its_moments_and_sums_of_parts_are_the_whole(steps, data):
    times_s, watts = steps
    joules = np.concatenate([[5.0], 5.0 + np.cumsum(watts[:-1] * np.diff(times_s))])
    curve = Curve(tuple(times_s.tolist()), tuple(joules.tolist()))
    begin_s, end_s = moments(data.draw, times_s)
    middle_s = data.draw(st.floats(begin_s, end_s))
    exact_j = np.interp(end_s, times_s, joules) - np.interp(begin_s, times_s, joules)
    assert curve.between(begin_s, end_s) == pytest.approx(exact_j, rel=1e-6, abs=1e-6)
    parts_j = curve.between(begin_s, middle_s) + curve.between(middle_s, end_s)
    assert parts_j == pytest.approx(exact_j, rel=1e-6, abs=1e-6)


def test_beyond_its_ends_a_curve_goes_on_as_at_its_ends():
    curve = Curve((1.0, 2.0, 4.0), (0.0, 100.0, 600.0))
    assert curve.between(0.0, 1.0) == pytest.approx(100.0)
    assert curve.between(4.0, 5.0) == pytest.approx(250.0)


@pytest.mark.parametrize(
    ("begin_s", "end_s", "covered"),
    [(1.0, 4.0, True), (0.99, 2.0, False), (2.0, 4.01, False), (0.0, 9.0, False), (2.0, 3.0, True)],
)
def test_both_moments_have_to_lie_within(begin_s, end_s, covered):
    curve = Curve((1.0, 2.0, 4.0), (0.0, 100.0, 600.0))
    assert curve.covers(begin_s, end_s) is covered
    assert not Curve((1.0,), (0.0,)).covers(1.0, 1.0)


@given(st.floats(0.05, 1.0), st.floats(10, 500), st.integers(3, 20), st.integers(4, 20))
def test_a_slow_counter_moved_between_two_reads_and_its_period_is_found(period_s, watts, moves, polls):
    poll_s = period_s / polls
    reads = [
        CounterRead(50 + i * period_s - poll_s, 50 + i * period_s, watts * i * period_s)
        for i in range(moves + 1)
    ]
    track = Track(counter=reads)
    # The first read of all shows a figure, not when it came to be.
    assert track.counter_curve.times_s == pytest.approx([read.read_s - poll_s / 2 for read in reads[1:]])
    assert track.counter_curve.energy_j == pytest.approx([read.energy_j for read in reads[1:]])
    assert track.counter_period_s == pytest.approx(period_s)
    begin_s, end_s = track.counter_curve.times_s[0], track.counter_curve.times_s[-1]
    assert track.counter_curve.between(begin_s, end_s) == pytest.approx(watts * (end_s - begin_s))


@pytest.mark.parametrize(("gap_s", "quick"), [(0.01, True), (0.0149, True), (0.0151, False), (0.02, False)])
def test_a_counter_that_moves_with_every_read_moved_when_it_was_read(gap_s, quick):
    reads = [CounterRead(i * gap_s - 0.01, i * gap_s, float(i)) for i in range(6)]
    shift_s = 0.0 if quick else 0.005
    expected = [read.read_s - shift_s for read in reads[1:]]
    assert Track(counter=reads).counter_curve.times_s == pytest.approx(expected)


def test_one_late_read_changes_neither_the_period_nor_the_kind_of_counter():
    moments_s = [0.0, 0.1, 0.2, 0.3, 2.0, 2.1, 2.2]
    reads = [CounterRead(t - 0.01, t, 10 * t) for t in moments_s]
    reads[4] = CounterRead(0.4, 2.0, 20.0)  # the sampling process slept
    track = Track(counter=reads)
    assert track.counter_period_s == pytest.approx(0.1)
    assert track.counter_curve.times_s[0] == pytest.approx(0.095)


@pytest.mark.parametrize(
    ("reads", "curve", "period"), [(1, False, False), (2, False, False), (3, True, False), (4, True, True)]
)
def test_how_many_moves_are_needed(reads, curve, period):
    track = Track(counter=[CounterRead(t - 0.01, float(t), float(t)) for t in range(reads)])
    assert (track.counter_curve is not None, track.counter_period_s is not None) == (curve, period)


@pytest.mark.parametrize(("known", "curve"), [(0, False), (1, False), (2, True)])
def test_two_samples_with_a_power_make_a_curve(known, curve):
    samples = [Sample(float(t), 100.0 if t < known else None, None, None, None) for t in range(3)]
    assert (Track(samples=samples).power_curve is not None) is curve


@given(st.lists(st.floats(0, 10), max_size=20).map(sorted), st.floats(0, 10), st.floats(0, 10))
def test_the_part_of_a_track_holds_all_rows_between_the_moments(times_s, begin_s, end_s):
    assume(begin_s <= end_s)
    track = Track(
        counter=[CounterRead(t - 1, t, t) for t in times_s],
        samples=[Sample(t, t, None, None, None) for t in times_s],
        failures=[(t, 15, "power") for t in times_s],
    )
    part = track.within(begin_s, end_s)
    inside = [t for t in times_s if begin_s <= t <= end_s]
    assert [read.read_s for read in part.counter] == inside
    assert [sample.time_s for sample in part.samples] == inside
    assert [time_s for time_s, _, _ in part.failures] == inside
