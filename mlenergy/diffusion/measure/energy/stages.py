"""Joules of every stage, from where the stages lie in time and how energy grew."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mlenergy.diffusion.measure.energy.curves import Curve
from mlenergy.diffusion.measure.samples import Stage
from mlenergy.diffusion.measure.stages import StageSpans

Interval = tuple[float, float]
PERIODS_FOR_DIRECT = 10  # a stage this many counter periods long is read off the counter itself
_SOLVED: tuple[Stage, ...] = ("text_encode", "denoise", "vae_decode", "other")


@dataclass(frozen=True)
class GpuStages:
    """One GPU's joules in each stage, mean over the windows; ``aggregated`` names those that were solved."""

    energy_j: dict[Stage, float]
    aggregated: frozenset[Stage]


def intervals(spans: StageSpans, begin_s: float) -> dict[Stage, list[Interval]]:
    """When each stage ran, on the clock that ``begin_s`` (the window's begin) is of."""
    found: dict[Stage, list[Interval]] = {
        "text_encode": [(begin_s + begin, begin_s + end) for begin, end in spans.text],
        "denoise": [(begin_s + spans.denoise[0], begin_s + spans.denoise[1])],
    }
    if spans.decode is not None:
        found["vae_decode"] = [(begin_s + spans.decode[0], begin_s + spans.decode[1])]
    return found


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
    placed = [intervals(span, begin) for span, (begin, _) in zip(spans, windows, strict=True)]
    solved = _solve(curve, windows, placed)
    energy: dict[Stage, float] = {}
    aggregated: set[Stage] = set()
    for stage in _SOLVED[:-1]:
        mean_s = statistics.fmean(_length(place.get(stage, [])) for place in placed)
        if mean_s == 0:
            continue
        if mean_s >= PERIODS_FOR_DIRECT * period_s:
            energy[stage] = statistics.fmean(
                sum(curve.between(*interval) for interval in place.get(stage, [])) for place in placed
            )
        else:
            energy[stage] = solved[stage] * mean_s
            aggregated.add(stage)
    total_j = statistics.fmean(curve.between(*window) for window in windows)
    energy["other"] = total_j - sum(energy.values())
    return GpuStages(energy, frozenset(aggregated))


def _solve(
    curve: Curve, windows: Sequence[Interval], placed: Sequence[dict[Stage, list[Interval]]]
) -> dict[Stage, float]:
    """Mean power in W of each stage, and of the rest of the windows, over the whole curve."""
    import numpy as np
    from scipy.optimize import nnls

    edges = np.asarray(curve.times_s)
    columns = [
        _overlap(edges, [interval for place in placed for interval in place.get(stage, [])])
        for stage in _SOLVED[:-1]
    ]
    inside = _overlap(edges, list(windows))
    columns.append(np.clip(inside - sum(columns), 0, None))
    columns.append(np.diff(edges) - inside)  # between the windows
    powers, _ = nnls(np.stack(columns, axis=1), np.diff(np.asarray(curve.energy_j)))
    return dict(zip(_SOLVED, (float(power) for power in powers), strict=False))


def _overlap(edges, pieces):  # type: ignore[no-untyped-def]  # numpy arrays, imported late
    """Seconds that each move of the curve (between two edges) shares with the pieces."""
    import numpy as np

    shared = np.zeros(len(edges) - 1)
    for begin_s, end_s in pieces:
        shared += np.clip(np.minimum(edges[1:], end_s) - np.maximum(edges[:-1], begin_s), 0, None)
    return shared


def _length(pieces: Sequence[Interval]) -> float:
    return sum(end_s - begin_s for begin_s, end_s in pieces)
