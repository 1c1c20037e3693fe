"""Warnings about windows taken together, each on both sides of its bound."""

from __future__ import annotations

import pytest

from mlenergy.diffusion.measure.steadiness import steadiness_warnings


def codes(durations_s):
    return [warning.code for warning in steadiness_warnings(durations_s)]


def test_steady_windows_and_too_few_have_no_warning():
    assert codes([1.0, 1.01, 0.99, 1.0, 1.02, 1.0]) == codes([1.0]) == codes([]) == []


def test_one_slow_window_among_fast_ones_is_named_and_is_no_drift():
    found = steadiness_warnings([0.0201, 0.0202, 0.0199, 0.0200, 0.0203, 0.44])
    assert [warning.code for warning in found] == ["outlier", "wide_interval"]
    assert "the median of 0.02015 s" in found[0].message
    assert "1 of 6 windows" in found[0].message and "window 5 (0.44 s, 21.8 times)" in found[0].message


def test_a_drift_is_no_outlier():
    (warning,) = steadiness_warnings([1.0, 1.01, 0.99, 1.02, 1.05, 1.04, 1.1, 1.11, 1.09])
    assert warning.code == "drift" and "10.0% slower" in warning.message


@pytest.mark.parametrize(("spread", "expected"), [(0.0553, []), (0.0559, ["wide_interval"])])
def test_an_interval_wider_than_the_mean_is_told(spread, expected):
    # Two values a ± d: s = d × sqrt(2), half = t(0.975, 1) × d = 12.7062 d; half the mean of 1.41 is 0.705.
    assert codes([1.41 - spread, 1.41 + spread]) == expected
