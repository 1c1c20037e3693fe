"""All readers' reports -> the run's energy, on rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mlenergy.diffusion.measure.energy.readings import WindowReport
from mlenergy.diffusion.measure.energy.reports import NodeReport
from mlenergy.diffusion.measure.samples import (
    WINDOW_PARTS,
    EnergyReading,
    MeasurementWarning,
    NodeEnergy,
    StageEnergy,
    Timeline,
)


@dataclass(frozen=True)
class EnergyReport:
    """Energy of a whole run: one reading a window, and what goes across windows."""

    readings: tuple[EnergyReading, ...]
    warnings: tuple[MeasurementWarning, ...] = ()
    stages: tuple[StageEnergy, ...] = ()
    stage_reason: str | None = None
    counter_period_s: dict[str, float] = field(default_factory=dict)
    timeline: Timeline | None = None


def merge(reports: Sequence[NodeReport], reason: str | None, windows: int) -> EnergyReport:
    """Sum all nodes' figures.

    Args:
        reports: of every reader, in rank order.
        reason: why no GPU energy is read in this run, None where it is.
        windows: how many were measured.
    """
    readings = tuple(_reading(reports, index, reason) for index in range(windows))
    stage_reason = reason or next((r.stage_reason for r in reports if r.stage_reason and r.counts_gpus), None)
    return EnergyReport(
        readings=readings,
        warnings=tuple(warning for report in reports for warning in report.warnings),
        stages=() if stage_reason else _stages(reports),
        stage_reason=stage_reason,
        counter_period_s={k: v for report in reports for k, v in report.counter_period_s.items()},
        timeline=_timeline(reports),
    )


def _reading(reports: Sequence[NodeReport], index: int, reason: str | None) -> EnergyReading:
    """One window over all nodes: a sum only where every GPU was read."""
    parts = [report.windows[index] for report in reports]
    reason = reason or next((part.failure for part in parts if part.failure), None)
    gpus = () if reason else tuple(gpu for part in parts for gpu in part.gpus)
    sampled = any(gpu.source == "sampled_power" for gpu in gpus)
    return EnergyReading(
        source="none" if reason else "sampled_power" if sampled else "nvml_counter",
        reason=reason,
        gpus=gpus,
        nodes=_nodes(reports, parts, known=reason is None),
        marks=tuple(sorted({mark for part in parts for mark in part.marks})),
        sample_period_s=max(report.sample_period_s for report in reports) if sampled else None,
    )


def _nodes(
    reports: Sequence[NodeReport], parts: Sequence[WindowReport], *, known: bool
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
            cpu_package_j=cpu.cpu_j,
            dram_j=cpu.dram_j,
            cpu_reason=cpu.cpu_reason,
        )
    return tuple(nodes.values())


def _stages(reports: Sequence[NodeReport]) -> tuple[StageEnergy, ...]:
    splits = {uuid: split for report in reports for uuid, split in report.stages.items()}
    found = []
    for stage in WINDOW_PARTS:
        per_gpu = {uuid: split.energy_j[stage] for uuid, split in splits.items() if stage in split.energy_j}
        if per_gpu:
            aggregated = any(stage in split.aggregated for split in splits.values())
            found.append(StageEnergy(stage, sum(per_gpu.values()), per_gpu, aggregated))
    return tuple(found)


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
