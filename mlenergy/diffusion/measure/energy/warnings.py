"""Doubts about a reader's windows: each has a code that docs/measuring.md explains."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.measure.energy.counters import NodeWindow
from mlenergy.diffusion.measure.energy.curves import Sample, Track
from mlenergy.diffusion.measure.energy.readers import NodeReader
from mlenergy.diffusion.measure.samples import MeasurementWarning

PERIODS_A_WINDOW = 10  # a counter that moves less often in a window is off by more than a tenth
MISMATCH = 0.05  # between the counter and the integral of sampled power
_STILL_S = 1.0  # a counter that does not move for so long stands still, whatever its period
_SAMPLES_FOR_CROSS_CHECK = 20  # fewer samples hold too little of the run to accuse the counter
# Bits of NVML's event reasons that mean: the clock is held below what the work asks for.
_THROTTLE = {
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
_POWER_CAP = 0x4
_MEANING = {
    "counter_backwards": "an energy counter went backwards",
    "counter_stood_still": "an energy counter stood still",
    "counter_unreadable": "an energy counter could not be read",
    "cpu_counter": "a CPU energy counter could not be trusted",
    "power_cap": "the power limit held the clocks down",
    "short_window": "windows are shorter than ten periods of the energy counter",
    "throttle": "the GPU was throttled",
}


def window_marks(
    track: Track, duration_s: float, energy_j: float | None, period_s: float | None
) -> list[str]:
    """Codes for one GPU and one window.

    Args:
        track: what was sampled within the window.
        duration_s: of the window.
        energy_j: by the counter, None where the GPU has none or it could not be read.
        period_s: of the counter, None where it did not move often enough to show one.
    """
    reasons = _event_reasons(track.samples)
    marks = ["throttle"] if any(reasons & bit for bit in _THROTTLE) else []
    if reasons & _POWER_CAP:
        marks.append("power_cap")
    if any(what == "counter" for _, _, what in track.failures):
        marks.append("counter_unreadable")
    if energy_j is None:
        return marks
    # A counter that is reset within a window may end above its begin: only the reads between show it.
    fell = any(after.energy_j < before.energy_j for before, after in itertools.pairwise(track.counter))
    if energy_j < 0 or fell:
        marks.append("counter_backwards")
    elif energy_j == 0 and duration_s > (2 * period_s if period_s is not None else _STILL_S):
        marks.append("counter_stood_still")
    if period_s is not None and duration_s < PERIODS_A_WINDOW * period_s:
        marks.append("short_window")
    return marks


def reader_warnings(reader: NodeReader, windows: Sequence[NodeWindow]) -> list[MeasurementWarning]:
    """One warning a kind and node, naming how many windows it is about."""
    warnings: list[MeasurementWarning] = []
    if reader.sampler_failure is not None:
        warnings.append(MeasurementWarning("no_timeline", f"{reader.node}: {reader.sampler_failure}"))
    sampling = reader.sampling
    if sampling is not None and sampling.period_s > sampling.requested_period_s:
        took = "long" if sampling.read_s is None else f"{1000 * sampling.read_s:.3g} ms"
        text = f"reading {sampling.gpus} GPUs of {reader.node} takes {took}: sampled every"
        asked = f"{sampling.period_s:.3g} s instead of every {sampling.requested_period_s:g} s"
        warnings.append(MeasurementWarning("period_widened", f"{text} {asked}"))
    for code in sorted({mark for window in windows for mark in window.marks}):
        count = sum(code in window.marks for window in windows)
        where = f"{count} of {len(windows)} windows on {reader.node}"
        warnings.append(
            MeasurementWarning(code, f"{_MEANING[code]}: {where}{_detail(code, reader, windows)}")
        )
    sampled = [gpu for gpu in reader.gpus if gpu not in reader.counters.counted]
    if sampled:
        names = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in sampled)
        text = f"no energy counter on GPU {names} of {reader.node}: energy is sampled power"
        period = f"{reader.sample_period_s:g} s"
        warnings.append(
            MeasurementWarning("sampled_power", f"{text}, read every {period} and held in between")
        )
    for gpu in reader.counters.counted:
        difference = _cross_check(reader, gpu, windows)
        if difference is not None:
            text = f"GPU {gpu.index} of {reader.node}: the integral of sampled power differs from"
            warnings.append(
                MeasurementWarning("power_mismatch", f"{text} the energy counter by {difference:+.1%}")
            )
    return warnings


def _detail(code: str, reader: NodeReader, windows: Sequence[NodeWindow]) -> str:
    """Figures and reasons of one kind of warning, to stand behind its meaning."""
    if code == "throttle":
        reasons = [_event_reasons(track.samples) for track in reader.tracks.values()]
        texts = {", ".join(name for bit, name in _THROTTLE.items() if each & bit) for each in reasons}
        return f" ({', '.join(sorted(texts - {''}))})"
    if code == "short_window":
        period_s = max(reader.counter_period_s(gpu) or 0.0 for gpu in reader.gpus)
        return f" (period {period_s:.3f} s): energy is coarse; use larger batches or more steps"
    if code == "cpu_counter":
        return f" ({next(window.cpu_reason for window in windows if code in window.marks)})"
    if code in ("counter_backwards", "counter_stood_still", "counter_unreadable"):
        return f" ({next((window.failure for window in windows if window.failure), 'while sampling')})"
    return ""


def _cross_check(reader: NodeReader, gpu: Gpu, windows: Sequence[NodeWindow]) -> float | None:
    """Relative difference of sampled power from the counter over all windows, where it is too large."""
    pairs = [
        (one.energy_j, one.sampled_energy_j)
        for window in windows
        for one in window.gpus
        if one.uuid == gpu.uuid and one.sampled_energy_j is not None
    ]
    measured_s = sum(window.end_s - window.begin_s for window in windows)
    counted_j, sampled_j = sum(counted for counted, _ in pairs), sum(sampled for _, sampled in pairs)
    if counted_j <= 0 or measured_s < _SAMPLES_FOR_CROSS_CHECK * reader.sample_period_s:
        return None
    difference = sampled_j / counted_j - 1
    return difference if abs(difference) > MISMATCH else None


def _event_reasons(samples: Sequence[Sample]) -> int:
    """Every bit that any of the samples has."""
    reasons = 0
    for sample in samples:
        reasons |= sample.event_reasons or 0
    return reasons
