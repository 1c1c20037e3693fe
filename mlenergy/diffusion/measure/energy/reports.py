"""Reports of energy: a reader's own, which travels to rank 0, and all of them as the run's."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.measure.energy.counters import NodeWindow
from mlenergy.diffusion.measure.energy.readers import NodeReader
from mlenergy.diffusion.measure.energy.stages import GpuStages, gpu_stages
from mlenergy.diffusion.measure.energy.warnings import reader_warnings, window_marks
from mlenergy.diffusion.measure.samples import (
    WINDOW_PARTS,
    GpuEnergy,
    MeasurementWarning,
    NodeEnergy,
    Sampling,
    StageEnergy,
    Timeline,
    WindowEnergy,
)
from mlenergy.diffusion.measure.stages import StageSpans

TimelineRow = tuple[
    str, str, float, float | None, int | None, int | None, int | None, int | None
]  # node, uuid, time_s, power_w, temperature_c, sm_clock_mhz, event_reasons, window


@dataclass(frozen=True)
class NodeReport:
    """All windows of one reader, and what goes across them. Several readers may share a node."""

    node: str
    windows: tuple[NodeWindow, ...]
    sample_period_s: float
    reads_gpus: bool
    reads_cpus: bool
    counter_period_s: dict[str, float] = field(default_factory=dict)  # GPU uuid -> seconds
    warnings: tuple[MeasurementWarning, ...] = ()
    timeline: tuple[TimelineRow, ...] = ()
    sampling: Sampling | None = None
    stages: dict[str, GpuStages] = field(default_factory=dict)  # by GPU uuid
    stage_reason: str | None = None  # why there are none


@dataclass(frozen=True)
class RunEnergy:
    """Energy of a whole run over all nodes: one entry a window, and what goes across windows."""

    windows: tuple[WindowEnergy, ...]
    warnings: tuple[MeasurementWarning, ...] = ()
    stages: tuple[StageEnergy, ...] = ()
    stage_reason: str | None = None  # why there are none
    counter_period_s: dict[str, float] = field(default_factory=dict)  # GPU uuid -> seconds
    timeline: Timeline | None = None
    sampling: Sampling | None = None


def report_node(reader: NodeReader, spans: Sequence[StageSpans | None]) -> NodeReport:
    """One reader's figures, after its last window; ``spans`` are the windows' stages."""
    windows = tuple(_with_samples(reader, window) for window in reader.counters.windows)
    stages, stage_reason = _gpu_stages(reader, windows, spans)
    periods_s = {gpu.uuid: reader.counter_period_s(gpu) for gpu in reader.gpus}
    return NodeReport(
        node=reader.node,
        windows=windows,
        sample_period_s=reader.sample_period_s,
        reads_gpus=bool(reader.gpus),
        reads_cpus=reader.with_cpus,
        counter_period_s={uuid: period_s for uuid, period_s in periods_s.items() if period_s is not None},
        warnings=tuple(reader_warnings(reader, windows)),
        timeline=tuple(_timeline_rows(reader)),
        sampling=reader.sampling,
        stages=stages,
        stage_reason=stage_reason,
    )


def merge(reports: Sequence[NodeReport], reason: str | None, windows: int) -> RunEnergy:
    """Sum all nodes' figures.

    Args:
        reports: of every reader, in rank order.
        reason: why no GPU energy is read in this run, None where it is.
        windows: how many were measured.
    """
    stage_reason = reason or next((r.stage_reason for r in reports if r.stage_reason and r.reads_gpus), None)
    return RunEnergy(
        windows=tuple(_window_energy(reports, index, reason) for index in range(windows)),
        warnings=tuple(warning for report in reports for warning in report.warnings),
        stages=() if stage_reason else _stage_energy(reports),
        stage_reason=stage_reason,
        counter_period_s={k: v for report in reports for k, v in report.counter_period_s.items()},
        timeline=_timeline(reports),
        sampling=_sampling([report.sampling for report in reports if report.sampling is not None]),
    )


def _with_samples(reader: NodeReader, window: NodeWindow) -> NodeWindow:
    """The window by its counters, with what the samples say of each GPU."""
    counted = {gpu.uuid: gpu for gpu in window.gpus}
    begin_s, end_s = window.begin_s, window.end_s
    gpus: list[GpuEnergy] = []
    marks, failure = set(window.marks), window.failure
    for gpu in reader.gpus:
        track = reader.tracks[gpu.uuid]
        sampled_j = track.sampled_j(begin_s, end_s)
        energy = counted.get(gpu.uuid)
        counted_j = None if energy is None else energy.energy_j
        period_s = reader.counter_period_s(gpu)
        found = window_marks(track.within(begin_s, end_s), end_s - begin_s, counted_j, period_s)
        marks.update(found)
        if gpu not in reader.counters.counted and sampled_j is not None:
            energy = GpuEnergy(reader.node, gpu.uuid, gpu.name, sampled_j, "sampled_power")
        if energy is not None:
            gpus.append(replace(energy, sampled_energy_j=sampled_j))
        failure = failure or _why_unknown(gpu, energy, found, reader.sampler_failure)
    return replace(window, gpus=() if failure else tuple(gpus), failure=failure, marks=tuple(sorted(marks)))


def _why_unknown(
    gpu: Gpu, energy: GpuEnergy | None, marks: Sequence[str], sampler_failure: str | None
) -> str | None:
    """Reason for which this GPU's joules of a window are unknown, None where they are known."""
    name = f"GPU {gpu.index} ({gpu.uuid})"
    if "counter_backwards" in marks:
        return f"the energy counter of {name} went backwards inside the window"
    if "counter_stood_still" in marks:
        return f"the energy counter of {name} stood still over the window"
    if energy is None:
        return f"{name} gave no energy: {sampler_failure or 'no power samples cover the window'}"
    return None


def _gpu_stages(
    reader: NodeReader, windows: Sequence[NodeWindow], spans: Sequence[StageSpans | None]
) -> tuple[dict[str, GpuStages], str | None]:
    """GPU uuid -> its stages; or none, and the reason."""
    known = [span for span in spans if span is not None]
    if not spans or len(known) < len(spans) or len(spans) != len(windows):
        return {}, "no stage times: the pipeline's components were not seen at work"
    failure = next((window.failure for window in windows if window.failure), None)
    if failure is not None:
        return {}, failure
    found: dict[str, GpuStages] = {}
    for gpu in reader.gpus:
        has_counter = gpu in reader.counters.counted
        curve = reader.energy_curve(gpu)
        period_s = reader.counter_period_s(gpu) if has_counter else reader.sample_period_s
        intervals = [(window.begin_s, window.end_s) for window in windows]
        stages = gpu_stages(curve, intervals, known, period_s) if curve and period_s else None
        if stages is None:
            return {}, f"GPU {gpu.index}'s energy was sampled too seldom over the windows: measure longer"
        found[gpu.uuid] = stages
    return found, None


def _timeline_rows(reader: NodeReader) -> list[TimelineRow]:
    windows = reader.counters.windows
    begins_s = [window.begin_s for window in windows]
    rows: list[TimelineRow] = []
    for uuid, track in reader.tracks.items():
        for sample in track.samples:
            last = bisect_right(begins_s, sample.time_s) - 1
            inside = last if last >= 0 and sample.time_s <= windows[last].end_s else None
            figures = (sample.power_w, sample.temperature_c, sample.sm_clock_mhz, sample.event_reasons)
            time_s = sample.time_s - (begins_s[0] if begins_s else 0.0)
            rows.append((reader.node, uuid, time_s, *figures, inside))
    return rows


def _window_energy(reports: Sequence[NodeReport], index: int, reason: str | None) -> WindowEnergy:
    """One window over all nodes: a sum only where every GPU was read."""
    parts = [report.windows[index] for report in reports]
    reason = reason or next((part.failure for part in parts if part.failure), None)
    gpus = () if reason else tuple(gpu for part in parts for gpu in part.gpus)
    sampled = any(gpu.source == "sampled_power" for gpu in gpus)
    return WindowEnergy(
        source="none" if reason else "sampled_power" if sampled else "nvml_counter",
        reason=reason,
        gpus=gpus,
        nodes=_node_energies(reports, parts, known=reason is None),
        marks=tuple(sorted({mark for part in parts for mark in part.marks})),
        sample_period_s=max(report.sample_period_s for report in reports) if sampled else None,
    )


def _node_energies(
    reports: Sequence[NodeReport], parts: Sequence[NodeWindow], *, known: bool
) -> tuple[NodeEnergy, ...]:
    """Each node's share; several readers of one node count together, its CPUs once."""
    nodes: dict[str, NodeEnergy] = {}
    for name in dict.fromkeys(report.node for report in reports):
        own = [(r, part) for r, part in zip(reports, parts, strict=True) if r.node == name]
        energies = [gpu.energy_j for _, part in own for gpu in part.gpus]
        cpu = next((part for report, part in own if report.reads_cpus), own[0][1])
        nodes[name] = NodeEnergy(
            node=name,
            gpu_energy_j=sum(energies) if known and energies else None,
            cpu_package_j=cpu.cpu_package_j,
            dram_j=cpu.dram_j,
            cpu_reason=cpu.cpu_reason,
        )
    return tuple(nodes.values())


def _stage_energy(reports: Sequence[NodeReport]) -> tuple[StageEnergy, ...]:
    of_gpu = {uuid: stages for report in reports for uuid, stages in report.stages.items()}
    found = []
    for part in WINDOW_PARTS:
        per_gpu = {uuid: stages.energy_j[part] for uuid, stages in of_gpu.items() if part in stages.energy_j}
        if per_gpu:
            aggregated = any(part in stages.aggregated for stages in of_gpu.values())
            found.append(StageEnergy(part, sum(per_gpu.values()), per_gpu, aggregated))
    return tuple(found)


def _sampling(nodes: Sequence[Sampling]) -> Sampling | None:
    """The slowest of every kind."""
    if not nodes:
        return None
    reads_s = [one.read_s for one in nodes if one.read_s is not None]
    return Sampling(
        requested_period_s=max(one.requested_period_s for one in nodes),
        period_s=max(one.period_s for one in nodes),
        counter_poll_s=max(one.counter_poll_s for one in nodes),
        read_s=max(reads_s) if len(reads_s) == len(nodes) else None,
        gpus=max(one.gpus for one in nodes),
    )


def _timeline(reports: Sequence[NodeReport]) -> Timeline | None:
    rows = [row for report in reports for row in report.timeline]
    if not rows:
        return None
    node, uuid, time_s, power_w, temperature_c, sm_clock_mhz, event_reasons, window = zip(*rows, strict=True)
    return Timeline(
        node=list(node),
        uuid=list(uuid),
        time_s=list(time_s),
        power_w=list(power_w),
        temperature_c=list(temperature_c),
        sm_clock_mhz=list(sm_clock_mhz),
        event_reasons=list(event_reasons),
        window=list(window),
        period_s=max(report.sample_period_s for report in reports),
    )
