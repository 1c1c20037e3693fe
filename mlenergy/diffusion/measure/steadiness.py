"""Doubts about the windows' durations taken together: drift, single outliers, a mean that is hardly known."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from mlenergy.diffusion.measure.samples import MeasurementWarning
from mlenergy.diffusion.measure.statistics import drift, outliers, summarize


def steadiness_warnings(durations_s: Sequence[float]) -> list[MeasurementWarning]:
    """At most one warning a kind, for the windows of a run in order; none for no window."""
    found = (_drift(durations_s), _outliers(durations_s), _wide_interval(durations_s))
    return [warning for warning in found if warning is not None]


def _drift(durations_s: Sequence[float]) -> MeasurementWarning | None:
    moved = drift(durations_s)
    if moved is None or not moved.significant:
        return None
    slower = "slower" if moved.relative > 0 else "faster"
    text = f"the last third of the windows is {abs(moved.relative):.1%} {slower} than the first"
    return MeasurementWarning("drift", f"{text}: no steady state (heat, clocks); warm up longer")


def _outliers(durations_s: Sequence[float]) -> MeasurementWarning | None:
    odd = outliers(durations_s)
    if not odd:
        return None
    named = ", ".join(f"window {one.index} ({one.value:.4g} s, {one.ratio:.3g} times)" for one in odd)
    median_s = statistics.median(durations_s)
    text = f"{len(odd)} of {len(durations_s)} windows far from the median of {median_s:.4g} s: {named}"
    advice = "the mean holds them: quote the median, or find the cause and measure again"
    return MeasurementWarning("outlier", f"{text}; {advice}")


def _wide_interval(durations_s: Sequence[float]) -> MeasurementWarning | None:
    if len(durations_s) < 2:
        return None
    summary = summarize(durations_s)
    half = summary.ci95_half_width
    if half is None or 2 * half <= summary.mean:
        return None
    text = (
        f"the 95 % interval of the mean, {summary.mean:.4g} ± {half:.4g} s a window, is wider than the mean"
    )
    return MeasurementWarning(
        "wide_interval",
        f"{text}: this mean says nothing; measure more windows (--benchmark_iters, --target_ci)",
    )
