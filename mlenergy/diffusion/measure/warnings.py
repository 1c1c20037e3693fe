"""What makes a number doubtful: each check gives warnings with a code that docs/measuring.md explains."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mlenergy.diffusion.measure.energy.sampler import Sample, Track
from mlenergy.diffusion.measure.samples import Iteration, MeasurementWarning
from mlenergy.diffusion.measure.statistics import drift

PERIODS_A_WINDOW = 10  # a counter that moves less often in a window is off by more than a tenth
MISMATCH = 0.05  # between the counter and the integral of sampled power
MOST_OTHER = 0.02  # share of a window that may be in no stage
_STILL_S = 1.0  # a counter that does not move for so long stands still, whatever its period
# Bits of NVML's event reasons that mean: the clock is held below what the work asks for.
_THROTTLE = {
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
_POWER_CAP = 0x4


def window_marks(
    track: Track, duration_s: float, energy_j: float | None, period_s: float | None
) -> list[str]:
    """Codes for one GPU and one window.

    track: what was sampled within the window.
    energy_j: by the counter, None where the GPU has none or it could not be read.
    period_s: of the counter, None where it did not move often enough to tell.
    """
    marks = event_marks(track.samples)
    if any(what == "counter" for _, _, what in track.failures):
        marks.append("counter_unreadable")
    if energy_j is None:
        return marks
    if energy_j < 0 or _goes_back(track):
        marks.append("counter_backwards")
    elif energy_j == 0 and duration_s > (2 * period_s if period_s is not None else _STILL_S):
        marks.append("counter_stood_still")
    if period_s is not None and duration_s < PERIODS_A_WINDOW * period_s:
        marks.append("short_window")
    return marks


def event_marks(samples: Sequence[Sample]) -> list[str]:
    """Codes throttle and power_cap, where a sample says so."""
    reasons = _all_reasons(samples)
    marks = ["throttle"] if any(reasons & bit for bit in _THROTTLE) else []
    return [*marks, "power_cap"] if reasons & _POWER_CAP else marks


def throttle_text(samples: Sequence[Sample]) -> str:
    """Names of the throttle reasons that were ever set."""
    reasons = _all_reasons(samples)
    return ", ".join(name for bit, name in _THROTTLE.items() if reasons & bit)


def mismatch(counted_j: float, sampled_j: float) -> float | None:
    """Relative difference of the sampled power's integral from the counter, where it is too large."""
    if counted_j <= 0:
        return None
    difference = sampled_j / counted_j - 1
    return difference if abs(difference) > MISMATCH else None


def run_warnings(iterations: Sequence[Iteration]) -> list[MeasurementWarning]:
    """Warnings that look at all windows together: drift, time in no stage, steps that cannot be told."""
    warnings: list[MeasurementWarning] = []
    moved = drift([iteration.duration_s for iteration in iterations])
    if moved is not None and moved.significant:
        slower = "slower" if moved.relative > 0 else "faster"
        text = f"the last third of the windows is {abs(moved.relative):.1%} {slower} than the first"
        warnings.append(
            MeasurementWarning("drift", f"{text}: no steady state (heat, clocks); warm up longer")
        )
    timed = [i for i in iterations if i.stages is not None]
    other = sum(i.stages.other_s for i in timed if i.stages) / max(sum(i.duration_s for i in timed), 1e-9)
    if timed and other > MOST_OTHER:
        text = f"{other:.1%} of the windows lies in no stage"
        warnings.append(
            MeasurementWarning("other_time", f"{text} (set-up of steps, noise, waiting); see other_s")
        )
    reason = next((i.stages.step_reason for i in timed if i.stages and i.stages.step_reason), None)
    if reason is not None:
        warnings.append(MeasurementWarning("steps_unknown", f"no time of single steps: {reason}"))
    return warnings


def _all_reasons(samples: Sequence[Sample]) -> int:
    """Every bit that any sample has."""
    reasons = 0
    for sample in samples:
        reasons |= sample.event_reasons or 0
    return reasons


def _goes_back(track: Track) -> bool:
    return any(after.energy_j < before.energy_j for before, after in itertools.pairwise(track.counter))
