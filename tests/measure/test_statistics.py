"""Statistics against values worked out by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mlenergy.diffusion.measure.statistics import StopRule, drift, percentile, summarize


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
