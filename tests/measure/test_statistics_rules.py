"""Statistics against numpy and scipy, for any figures."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mlenergy.diffusion.measure.statistics import StopRule, drift, outliers, percentile, summarize

SECONDS = st.floats(0.001, 1000)
ROWS = st.lists(SECONDS, min_size=1, max_size=40)


@given(ROWS, st.randoms(use_true_random=False))
def test_a_summary_is_numpys_whatever_the_order(values, rng):
    shuffled = list(values)
    rng.shuffle(shuffled)
    found = summarize(shuffled)
    assert (found.count, found.minimum, found.maximum) == (len(values), min(values), max(values))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.median == pytest.approx(np.median(values))
    assert found.p90 == pytest.approx(np.percentile(values, 90))
    assert found.p99 == pytest.approx(np.percentile(values, 99))
    if len(values) > 1:
        assert found.standard_deviation == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-9)
    else:
        assert found.standard_deviation is None


@given(st.lists(SECONDS, min_size=1, max_size=12), st.floats(0, 1))
def test_any_percentile_is_numpys(values, share):
    assert percentile(sorted(values), share) == pytest.approx(np.quantile(values, share))


@given(st.lists(SECONDS, min_size=2, max_size=30))
def test_the_interval_is_scipys(values):
    found = summarize(values)
    error = scipy.stats.sem(values)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error or 1e-300)
    assert found.ci95_low == pytest.approx(low, rel=1e-6, abs=1e-9)
    assert found.ci95_high == pytest.approx(high, rel=1e-6, abs=1e-9)
    assert found.ci95_half_width == pytest.approx((high - low) / 2, rel=1e-6, abs=1e-9)
    assert found.ci95_reason is None


@given(st.lists(SECONDS, min_size=2, max_size=30), st.floats(0.01, 100))
def test_every_figure_but_the_count_scales_with_its_unit(values, factor):
    one, other = summarize(values), summarize([factor * value for value in values])
    for name in ("mean", "median", "standard_deviation", "p90", "p99", "ci95_low", "ci95_high"):
        assert getattr(other, name) == pytest.approx(factor * getattr(one, name), rel=1e-6, abs=1e-9)


def far_from_the_others(values):
    """Places of values whose modified z-score (Iglewicz and Hoaglin, 1993) and distance are large."""
    distances = np.abs(np.array(values) - np.median(values))
    odd = (0.6745 * distances > 3.5 * np.median(distances)) & (distances > 0.05 * np.median(values))
    return set(np.flatnonzero(odd).tolist())


MOSTLY_STEADY = st.lists(st.floats(0.97, 1.03) | st.floats(0.5, 3), min_size=1, max_size=40)


@given(MOSTLY_STEADY)
def test_outliers_are_far_by_median_and_mad(values):
    found = outliers(values)
    assert {one.index for one in found} == (far_from_the_others(values) if len(values) >= 4 else set())
    for one in found:
        assert one.value == values[one.index]
        assert one.ratio == pytest.approx(values[one.index] / np.median(values))


@given(
    st.lists(st.floats(0.97, 1.03) | st.floats(0.5, 2), min_size=6, max_size=40),
    st.sampled_from([0.25, 1, 64]),
)
def test_drift_is_a_share_and_welchs_test_decides(values, factor):
    third, odd = len(values) // 3, far_from_the_others(values)
    places = range(len(values))
    first, last = (
        [values[i] for i in part if i not in odd] or [values[i] for i in part]
        for part in (places[:third], places[len(values) - third :])
    )
    found = drift([factor * value for value in values])
    relative = np.mean(last) / np.mean(first) - 1
    assert found.relative == pytest.approx(relative, abs=1e-9)
    if len(first) > 1 and len(last) > 1 and (np.ptp(first) or np.ptp(last)):
        p = scipy.stats.ttest_ind(first, last, equal_var=False).pvalue
        # At the very edge either answer is right.
        if min(abs(abs(relative) - 0.02), abs(p - 0.05)) > 1e-6:
            assert found.significant == (abs(relative) > 0.02 and p < 0.05)


@pytest.mark.parametrize(
    ("first", "last", "significant"),
    [
        ([1.0, 1.0], [1.5, 1.5], True),  # no scatter: any difference of size is real
        ([1.0, 1.0], [1.01, 1.01], False),  # ... of size
        ([1.0, 1.0], [0.9, 0.9], True),
        # Welch: one noisy third. Pooled, the variances would hide it (or invent it).
        ([1.0, 1.001, 0.999, 1.0], [1.03, 1.031, 1.029, 1.03], True),
        ([0.5, 1.5, 0.6, 1.4], [1.1, 1.1, 1.1, 1.1], False),
    ],
)
def test_a_drift_is_large_and_more_than_chance(first, last, significant):
    middle = [50.0] * len(first)  # takes no part
    assert drift(first + middle + last).significant == significant


def test_unequal_variances_are_not_pooled():
    first, last = [1.0, 1.4, 0.6, 1.3, 0.7], [1.4, 1.401, 1.399, 1.4, 1.4]
    # Pooled, eight degrees of freedom would make it significant; Welch's test has hardly more than four.
    assert (
        scipy.stats.ttest_ind(first, last).pvalue
        < 0.05
        < scipy.stats.ttest_ind(first, last, equal_var=False).pvalue
    )
    assert not drift([*first, *[1.0] * 5, *last]).significant


def test_five_windows_show_no_drift_and_six_do():
    assert drift([1.0] * 5) is None
    assert drift([1.0, 1.0, 1.0, 1.0, 2.0, 2.0]).relative == 1.0


@given(st.lists(st.floats(0.9, 1.1), min_size=2, max_size=20), st.floats(0.001, 0.2), st.integers(2, 12))
def test_a_stop_rule_is_met_where_the_half_width_is_within_its_share(values, target, least):
    rule = StopRule(target, least=least, most=15)
    met = rule.is_met(values)
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
    if len(values) < least:
        assert not met
    elif len(values) >= 15:
        assert met
    elif not math.isclose(half, target * np.mean(values), rel_tol=1e-6):
        assert met == (half < target * np.mean(values))


def test_an_exact_half_width_is_enough_and_the_usual_numbers_of_windows():
    assert StopRule(0.0, least=2).is_met([1.0, 1.0])
    rng = random.Random(0)
    noise = [rng.uniform(0.1, 10) for _ in range(100)]
    usual = StopRule(0.001)
    assert not usual.is_met([1.0] * 4) and usual.is_met([1.0] * 5)
    assert not usual.is_met(noise[:99]) and usual.is_met(noise)


def test_two_values_are_enough_for_an_interval():
    found = summarize([1.0, 3.0])
    assert found.ci95_reason is None
    # t(0.975, 1) = 12.7062; s ÷ sqrt(2) = 1
    assert found.ci95_half_width == pytest.approx(12.7062, rel=1e-5)
