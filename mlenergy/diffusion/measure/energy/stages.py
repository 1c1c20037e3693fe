"""Joules of every stage, from where the stages lie in time and how energy grew."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mlenergy.diffusion.measure.energy.curves import Curve
from mlenergy.diffusion.measure.samples import WindowPart
from mlenergy.diffusion.measure.stages import Interval, StageSpans
from mlenergy.diffusion.models.spec import STAGES, Stage

PERIODS_FOR_DIRECT = 10  # a stage this many counter periods long is read off the counter itself


@dataclass(frozen=True)
class GpuStages:
    """One GPU's joules in each stage, mean over the windows; ``aggregated`` names those that were solved."""

    energy_j: dict[WindowPart, float]
    aggregated: frozenset[Stage]


def gpu_stages(
    curve: Curve, windows: Sequence[Interval], spans: Sequence[StageSpans], period_s: float
) -> GpuStages | None:
    """Joules of one GPU in each stage, mean over the windows; None where the curve is too short.

    A stage of ten counter periods or more is the curve's growth over it. A shorter one
    cannot be read off a counter that stands still meanwhile: the mean powers of all stages
    are solved, by non-negative least squares, from every move of the counter over all
    windows together (energy of a move = sum over stages of power × time in it).
    ``other`` is what remains of the windows' energy.
    """
    if not curve.covers(windows[0][0], windows[-1][1]):
        return None
    # window -> stage -> when it ran, on the curve's clock
    placed = [
        {
            stage: [(window_s + begin_s, window_s + end_s) for begin_s, end_s in pieces]
            for stage, pieces in span.intervals.items()
        }
        for span, (window_s, _) in zip(spans, windows, strict=True)
    ]
    mean_power_w = _mean_power_w(curve, windows, placed)
    energy: dict[WindowPart, float] = {}
    aggregated: set[Stage] = set()
    for stage in STAGES:
        mean_s = statistics.fmean(span.seconds(stage) for span in spans)
        if mean_s == 0:
            continue
        if mean_s >= PERIODS_FOR_DIRECT * period_s:
            energy[stage] = statistics.fmean(
                sum(curve.between(*interval) for interval in place.get(stage, [])) for place in placed
            )
        else:
            energy[stage] = mean_power_w[stage] * mean_s
            aggregated.add(stage)
    total_j = statistics.fmean(curve.between(*window) for window in windows)
    energy["other"] = total_j - sum(energy.values())
    return GpuStages(energy, frozenset(aggregated))


def _mean_power_w(
    curve: Curve, windows: Sequence[Interval], placed: Sequence[dict[Stage, list[Interval]]]
) -> dict[Stage, float]:
    """Mean power of each stage over the whole curve.

    One equation for every move of the curve: its joules are the sum, over the stages, the rest of
    the windows and the time between them, of power × the seconds that the move shares with each.
    There are far more moves than powers, and a power is never negative: non-negative least squares
    (Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23), as scipy has it.
    """
    import numpy as np
    from scipy.optimize import nnls

    edges_s = np.asarray(curve.times_s)
    columns = [
        _overlap_s(edges_s, [one for place in placed for one in place.get(stage, [])]) for stage in STAGES
    ]
    inside = _overlap_s(edges_s, list(windows))
    columns.append(np.clip(inside - sum(columns), 0, None))  # the rest of the windows
    columns.append(np.diff(edges_s) - inside)  # between the windows
    powers, _ = nnls(np.stack(columns, axis=1), np.diff(np.asarray(curve.energy_j)))
    return {stage: float(power) for stage, power in zip(STAGES, powers, strict=False)}


def _overlap_s(edges_s, pieces):  # type: ignore[no-untyped-def]  # numpy arrays, imported late
    """Seconds that each move of the curve (between two edges) shares with the pieces."""
    import numpy as np

    shared = np.zeros(len(edges_s) - 1)
    for begin_s, end_s in pieces:
        shared += np.clip(np.minimum(edges_s[1:], end_s) - np.maximum(edges_s[:-1], begin_s), 0, None)
    return shared
