"""Statistics against values worked out by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mlenergy.diffusion.measure.statistics import StopRule, drift, outliers, percentile, summarize


def test_summary_of_a_known_row():
    summary = summarize([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert (summary.count, summary.mean, summary.median) == (8, 5.0, 4.5)
    assert summary.standard_deviation == pytest.approx(2.13809, rel=1e-5)
    assert (summary.minimum, summary.maximum) == (2.0, 9.0)
    # t(0.975, 7) = 2.364624 (any table) × 2.13809 ÷ sqrt(8)
    assert summary.ci95_half_width == pytest.approx(2.364624 * 2.13809 / 8**0.5, rel=1e-5)
    assert summary.ci95_low == pytest.approx(5.0 - summary.ci95_half_width)
    assert summary.ci95_reason is None


def test_percentiles_are_numpys():
    values = sorted([0.3, 9.0, 4.0, 1.0, 2.5, 7.0, 7.0])
    for share in (0, 0.5, 0.9, 0.99, 1):
        assert percentile(values, share) == pytest.approx(np.percentile(values, 100 * share))


def test_one_value_has_no_interval_and_says_why():
    summary = summarize([3.0])
    assert summary.ci95_low is None and summary.standard_deviation is None
    assert summary.ci95_half_width is None
    assert "at least two" in summary.ci95_reason


def test_no_value_is_an_error():
    with pytest.raises(ValueError, match="no values"):
        summarize([])


def test_the_interval_holds_the_true_mean_19_times_in_20():
    draws = np.random.default_rng(1).normal(10.0, 1.0, size=(2000, 5))
    summaries = [summarize(row.tolist()) for row in draws]
    share = np.mean([s.ci95_low <= 10.0 <= s.ci95_high for s in summaries])
    assert 0.93 < share < 0.97


def test_drift_is_found_only_where_there_is_one():
    assert drift([1.0, 1.0, 1.0, 1.0, 1.0]) is None
    steady = drift([1.0, 1.01, 0.99, 1.0, 1.02, 1.0, 0.99, 1.01, 1.0])
    assert not steady.significant
    slower = drift([1.0, 1.01, 0.99, 1.02, 1.05, 1.04, 1.1, 1.11, 1.09])
    assert slower.significant and slower.relative == pytest.approx(0.1, abs=0.001)
    noisy = drift([1.0, 2.0, 1.0, 2.0, 1.0, 2.0])
    assert not noisy.significant


HEAT = [1.0, 1.01, 0.99, 1.02, 1.05, 1.04, 1.1, 1.11, 1.09]


@pytest.mark.parametrize("place", range(9))
def test_one_outlier_is_an_outlier_and_no_drift_wherever_it_falls(place):
    values = [0.0201, 0.0202, 0.0199, 0.0200, 0.0203, 0.0198, 0.0201, 0.0200, 0.0202]
    values[place] = 0.44
    (odd,) = outliers(values)
    assert (odd.index, odd.value, odd.ratio) == (place, 0.44, pytest.approx(22, rel=0.01))
    moved = drift(values)
    assert not moved.significant and abs(moved.relative) < 0.02


def test_an_outlier_among_equal_values_is_no_drift():
    """No scatter at all but for it: Welch's t has nothing to divide by."""
    for place in range(6):
        values = [0.02] * 6
        values[place] = 0.44
        assert [odd.index for odd in outliers(values)] == [place]
        assert not drift(values).significant


def test_an_outlier_does_not_hide_a_drift():
    moved = drift([*HEAT[:4], 9.0, *HEAT[5:]])
    assert moved.significant and moved.relative == pytest.approx(0.1, abs=0.001)
    moved = drift([HEAT[0], 9.0, *HEAT[2:]])
    assert moved.significant and moved.relative == pytest.approx(0.105, abs=0.001)


def test_a_whole_third_that_lies_apart_is_a_drift():
    moved = drift([1.0] * 8 + [1.1] * 4)
    assert moved.significant and moved.relative == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("values", "odd"),
    [
        # MAD 0.1 of the others, 0.6745 × 0.52 ÷ 0.1 = 3.51 and 0.6745 × 0.51 ÷ 0.1 = 3.44
        ([1.0, 0.9, 1.1, 0.8, 1.2, 1.0, 0.9, 1.1, 1.52], [8]),
        ([1.0, 0.9, 1.1, 0.8, 1.2, 1.0, 0.9, 1.1, 1.51], []),
        ([1.0, 1.0, 1.0, 1.0, 1.051], [4]),  # beyond 5 % of the median
        ([1.0, 1.0, 1.0, 1.0, 1.049], []),
        ([1.0, 1.0, 1.0, 0.9], [3]),
        ([1.0, 1.0, 9.0], []),  # of three one is always the odd one
        (HEAT, []),
    ],
)
def test_outliers_begin_where_the_literature_says(values, odd):
    assert [outlier.index for outlier in outliers(values)] == odd


def test_stop_rule():
    rule = StopRule(target=0.01, least=3, most=6)
    assert not rule.is_met([1.0, 1.0])
    assert rule.is_met([1.0, 1.0, 1.0])
    assert not rule.is_met([1.0, 1.5, 1.0])
    assert rule.is_met([1.0, 1.5, 1.0, 1.5, 1.0, 1.5])


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_the_stop_rule_is_relative_to_the_mean(scale):
    # Half-width of [0.99, 1, 1.01]: t(0.975, 2) = 4.302653 × 0.01 ÷ sqrt(3), so 2.48 % of the mean.
    durations = [scale * value for value in (0.99, 1.0, 1.01)]
    assert StopRule(target=0.025, least=3, most=50).is_met(durations)
    assert not StopRule(target=0.0245, least=3, most=50).is_met(durations)


def test_no_torch_is_imported():
    code = (
        "import sys; from mlenergy.diffusion.measure.statistics import summarize; "
        "summarize([1.0, 2.0]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
