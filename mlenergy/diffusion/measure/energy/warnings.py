"""A reader's own warnings: which of its windows are doubtful, and why."""

from __future__ import annotations

from collections.abc import Sequence

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.measure.energy.readings import Readings, WindowReport
from mlenergy.diffusion.measure.samples import MeasurementWarning
from mlenergy.diffusion.measure.warnings import mismatch, throttle_text

_SAMPLES_FOR_CROSS_CHECK = 20  # fewer samples hold too little of the run to accuse the counter


def reader_warnings(readings: Readings, windows: Sequence[WindowReport]) -> list[MeasurementWarning]:
    """One warning a kind and node, naming how many windows it is about."""
    warnings: list[MeasurementWarning] = []
    if readings.trouble is not None:
        warnings.append(MeasurementWarning("no_timeline", f"{readings.node}: {readings.trouble}"))
    for code in sorted({mark for window in windows for mark in window.marks}):
        count = sum(code in window.marks for window in windows)
        where = f"{count} of {len(windows)} windows on {readings.node}"
        warnings.append(
            MeasurementWarning(code, f"{_MEANING[code]}: {where}{_detail(code, readings, windows)}")
        )
    sampled = [one.gpu for one in readings.gpus if not one.has_counter]
    if sampled:
        names = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in sampled)
        text = f"no energy counter on GPU {names} of {readings.node}: energy is sampled power"
        period = f"{readings.sample_period_s:g} s"
        warnings.append(
            MeasurementWarning("sampled_power", f"{text}, read every {period} and held in between")
        )
    for gpu in readings.reader.counted:
        difference = _cross_check(readings, gpu, windows)
        if difference is not None:
            text = f"GPU {gpu.index} of {readings.node}: the integral of sampled power differs from"
            warnings.append(
                MeasurementWarning("power_mismatch", f"{text} the energy counter by {difference:+.1%}")
            )
    return warnings


_MEANING = {
    "counter_backwards": "an energy counter went backwards",
    "counter_stood_still": "an energy counter stood still",
    "counter_unreadable": "an energy counter could not be read",
    "cpu_counter": "a CPU energy counter could not be trusted",
    "power_cap": "the power limit held the clocks down",
    "short_window": "windows are shorter than ten periods of the energy counter",
    "throttle": "the GPU was throttled",
}


def _detail(code: str, readings: Readings, windows: Sequence[WindowReport]) -> str:
    if code == "throttle":
        texts = {throttle_text(one.track.samples) for one in readings.gpus}
        return f" ({', '.join(sorted(texts - {''}))})"
    if code == "short_window":
        periods = [one.period_s or 0.0 for one in readings.gpus]
        return f" (period {max(periods):.3f} s): energy is coarse; use larger batches or more steps"
    if code == "cpu_counter":
        return f" ({next(w.cpu_reason for w in windows if code in w.marks)})"
    if code in ("counter_backwards", "counter_stood_still", "counter_unreadable"):
        return f" ({next((w.failure for w in windows if w.failure), 'while sampling')})"
    return ""


def _cross_check(readings: Readings, gpu: Gpu, windows: Sequence[WindowReport]) -> float | None:
    """How far sampled power is off the counter over all windows, None where it is near enough."""
    pairs = [
        (one.energy_j, one.sampled_energy_j)
        for window in windows
        for one in window.gpus
        if one.uuid == gpu.uuid and one.sampled_energy_j is not None
    ]
    spans_s = sum(window.end_s - window.begin_s for window in readings.reader.windows)
    if not pairs or spans_s < _SAMPLES_FOR_CROSS_CHECK * readings.sample_period_s:
        return None
    return mismatch(sum(counted for counted, _ in pairs), sum(sampled or 0.0 for _, sampled in pairs))
