"""What one reader found, in a form that travels to rank 0."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.measure.energy.counters import RawWindow
from mlenergy.diffusion.measure.energy.readings import GpuReadings, Readings, WindowReport
from mlenergy.diffusion.measure.energy.stages import GpuStages, gpu_stages
from mlenergy.diffusion.measure.energy.warnings import reader_warnings
from mlenergy.diffusion.measure.samples import EnergySource, GpuEnergy, MeasurementWarning
from mlenergy.diffusion.measure.stages import StageSpans
from mlenergy.diffusion.measure.warnings import window_marks

TimelineRow = tuple[
    str, str, float, float | None, int | None, int | None, int | None, int | None
]  # node, uuid, time_s, power_w, temperature_c, sm_clock_mhz, event_reasons, window


@dataclass(frozen=True)
class NodeReport:
    """All windows of one reader."""

    node: str
    windows: tuple[WindowReport, ...]
    sample_period_s: float
    reads_cpus: bool
    counter_period_s: dict[str, float] = field(default_factory=dict)
    warnings: tuple[MeasurementWarning, ...] = ()
    timeline: tuple[TimelineRow, ...] = ()
    stages: dict[str, GpuStages] = field(default_factory=dict)
    stage_reason: str | None = None

    @property
    def counts_gpus(self) -> bool:
        """Whether this reader reads any GPU (else only its node's CPUs)."""
        return bool(self.counter_period_s or self.timeline or any(window.gpus for window in self.windows))


def report_node(readings: Readings, spans: Sequence[StageSpans | None]) -> NodeReport:
    """Put one reader's figures together; ``spans`` are the windows' stages."""
    windows = tuple(_window_report(readings, window) for window in readings.reader.windows)
    stages, stage_reason = _stages(readings, windows, spans)
    return NodeReport(
        node=readings.node,
        windows=windows,
        sample_period_s=readings.sample_period_s,
        reads_cpus=readings.reader.with_cpus,
        counter_period_s={one.gpu.uuid: one.period_s for one in readings.gpus if one.period_s is not None},
        warnings=tuple(reader_warnings(readings, windows)),
        timeline=tuple(_timeline(readings)),
        stages=stages,
        stage_reason=stage_reason,
    )


def _window_report(readings: Readings, window: RawWindow) -> WindowReport:
    gpus: list[GpuEnergy] = []
    marks: set[str] = set()
    failure = window.failure
    for one in readings.gpus:
        found, energy, wrong = _gpu_window(readings, one, window)
        marks.update(found)
        failure = failure or wrong
        if energy is not None:
            gpus.append(energy)
    if window.failure is not None:
        marks.add("counter_unreadable")
    if window.cpu_failure is not None:
        marks.add("cpu_counter")
    return WindowReport(
        gpus=() if failure else tuple(gpus),
        failure=failure,
        marks=tuple(sorted(marks)),
        cpu_j=window.cpu_j,
        dram_j=window.dram_j,
        cpu_reason=window.cpu_failure or readings.reader.cpu_reason,
    )


def _gpu_window(
    readings: Readings, one: GpuReadings, window: RawWindow
) -> tuple[list[str], GpuEnergy | None, str | None]:
    """One GPU over one window: marks, energy, and why there is none."""
    begin_s, end_s = window.begin_s, window.end_s
    counted_j = window.gpu_j.get(one.gpu.uuid)
    sampled_j = one.sampled_j(begin_s, end_s)
    marks = window_marks(one.within(begin_s, end_s), end_s - begin_s, counted_j, one.period_s)
    energy_j = counted_j if one.has_counter else sampled_j
    wrong = _why_unknown(one.gpu, energy_j, marks, readings.trouble)
    if energy_j is None or wrong is not None:
        return marks, None, wrong
    source: EnergySource = "nvml_counter" if one.has_counter else "sampled_power"
    return marks, GpuEnergy(readings.node, one.gpu.uuid, one.gpu.name, energy_j, source, sampled_j), None


def _why_unknown(gpu: Gpu, energy_j: float | None, marks: Sequence[str], trouble: str | None) -> str | None:
    """Why this GPU's joules of a window cannot be told, None where they can."""
    name = f"GPU {gpu.index} ({gpu.uuid})"
    if "counter_backwards" in marks:
        return f"the energy counter of {name} went backwards inside the window"
    if "counter_stood_still" in marks:
        return f"the energy counter of {name} stood still over the window"
    if energy_j is None:
        return f"{name} gave no energy: {trouble or 'no power samples cover the window'}"
    return None


def _stages(
    readings: Readings, reports: Sequence[WindowReport], spans: Sequence[StageSpans | None]
) -> tuple[dict[str, GpuStages], str | None]:
    """GPU -> its stages, or nothing and why."""
    known = [span for span in spans if span is not None]
    if not spans or len(known) < len(spans) or len(spans) != len(reports):
        return {}, "no stage times: the pipeline's components were not seen at work"
    failure = next((report.failure for report in reports if report.failure), None)
    if failure is not None:
        return {}, failure
    windows = [(window.begin_s, window.end_s) for window in readings.reader.windows]
    found: dict[str, GpuStages] = {}
    for one in readings.gpus:
        period_s = one.period_s if one.has_counter else readings.sample_period_s
        split = gpu_stages(one.energy, windows, known, period_s) if one.energy and period_s else None
        if split is None:
            return {}, f"GPU {one.gpu.index}'s energy was sampled too seldom over the windows: measure longer"
        found[one.gpu.uuid] = split
    return found, None


def _timeline(readings: Readings) -> list[TimelineRow]:
    windows = readings.reader.windows
    begins_s = [window.begin_s for window in windows]
    rows: list[TimelineRow] = []
    for one in readings.gpus:
        for sample in one.track.samples:
            last = bisect_right(begins_s, sample.time_s) - 1
            inside = last if last >= 0 and sample.time_s <= windows[last].end_s else None
            figures = (sample.power_w, sample.temperature_c, sample.sm_clock_mhz, sample.event_reasons)
            time_s = sample.time_s - (begins_s[0] if begins_s else 0.0)
            rows.append((readings.node, one.gpu.uuid, time_s, *figures, inside))
    return rows
