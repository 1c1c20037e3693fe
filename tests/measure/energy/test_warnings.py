"""Marks of one GPU in one window, as a function of what was read."""

from __future__ import annotations

import pytest

from mlenergy.diffusion.measure.energy.curves import CounterRead, Sample, Track
from mlenergy.diffusion.measure.energy.warnings import window_marks


def counter(*joules):
    return Track(counter=[CounterRead(t - 0.01, float(t), energy_j) for t, energy_j in enumerate(joules)])


def events(*reasons):
    return Track(samples=[Sample(float(t), 100.0, 40, 1500, bits) for t, bits in enumerate(reasons)])


def test_nothing_wrong_has_no_mark():
    assert window_marks(counter(1, 2, 3), 2.0, 2.0, 0.1) == []
    assert window_marks(events(0, None, 0x1), 2.0, 2.0, 0.1) == []


def test_a_counter_that_is_reset_and_ends_above_its_begin_went_backwards():
    assert window_marks(counter(5, 6, 0, 9), 3.0, 4.0, 0.1) == ["counter_backwards"]
    assert window_marks(Track(), 3.0, -0.5, 0.1) == ["counter_backwards"]


def test_a_counter_stands_still_over_more_than_two_of_its_periods():
    assert window_marks(Track(), 2.1, 0.0, 1.0) == ["counter_stood_still", "short_window"]
    assert window_marks(Track(), 1.9, 0.0, 1.0) == ["short_window"]
    assert window_marks(Track(), 1.1, 0.0, None) == ["counter_stood_still"]
    assert window_marks(Track(), 0.9, 0.0, None) == []


@pytest.mark.parametrize(("periods", "marks"), [(9.9, ["short_window"]), (10.1, [])])
def test_a_window_has_ten_periods(periods, marks):
    assert window_marks(Track(), periods * 0.1, 5.0, 0.1) == marks


def test_event_reasons_of_any_sample_count():
    assert window_marks(events(0, 0x40, 0), 1.0, None, None) == ["throttle"]
    assert window_marks(events(0x4, 0x8), 1.0, None, None) == ["throttle", "power_cap"]
    assert window_marks(events(0x4), 1.0, None, None) == ["power_cap"]
    for throttled in (0x8, 0x20, 0x40, 0x80):
        assert window_marks(events(throttled), 1.0, None, None) == ["throttle"], hex(throttled)
    assert window_marks(events(0x1, 0x2, 0x10), 1.0, None, None) == []


def test_a_counter_that_failed_while_sampling_is_told_from_other_failures():
    assert window_marks(Track(failures=[(0.5, 15, "counter")]), 1.0, 5.0, None) == ["counter_unreadable"]
    assert window_marks(Track(failures=[(0.5, 15, "temperature")]), 1.0, 5.0, None) == []
