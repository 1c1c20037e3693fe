"""The parts of a result, each from its samples. Pure: no files, no clocks, no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.measure.samples import WINDOW_PARTS, sum_or_none
from mlenergy.diffusion.measure.statistics import Summary, drift, outliers, summarize
from mlenergy.diffusion.results.units import IMAGE, Unit

if TYPE_CHECKING:
    from mlenergy.diffusion.config.parallelism import Parallelism
    from mlenergy.diffusion.measure.samples import Iteration, Measurement, RankMemory, WindowEnergy

_STAGE_KEYS = (*(f"{part}_s" for part in WINDOW_PARTS), "postprocess_s")  # fields of StageTimes
_NO_STAGES = "no rank reported stage times in every window"


def total_energy_j(iterations: Sequence[Iteration]) -> float | None:
    """Joules of all GPUs over all windows; None as soon as one window's are unknown."""
    return sum_or_none(iteration.energy.gpu_energy_j for iteration in iterations)


def statistics_section(iterations: Sequence[Iteration], unit: Unit = IMAGE) -> dict[str, Any]:
    """Summaries over the iterations: time and energy, of a window and of an output."""
    durations = [i.duration_s for i in iterations]
    energies = [i.energy.gpu_energy_j for i in iterations]
    change = drift(durations)
    return {
        "duration_s": _summary(durations),
        unit.time: _summary([i.duration_s / i.images for i in iterations]),
        "energy_j": _summary(energies),
        unit.energy: _summary(
            [None if e is None else e / i.images for i, e in zip(iterations, energies, strict=True)]
        ),
        "drift": None if change is None else asdict(change),
        "outliers": [asdict(outlier) for outlier in outliers(durations)],
    }


def stage_section(iterations: Sequence[Iteration]) -> dict[str, Any]:
    """Summaries of each stage's seconds over the iterations, and of all single steps."""
    timed = [i.stages for i in iterations if i.stages is not None]
    if len(timed) < len(iterations):
        return {"reason": _NO_STAGES, **dict.fromkeys((*_STAGE_KEYS, "denoise_step_s"))}
    section = {name: _summary([getattr(stages, name) for stages in timed]) for name in _STAGE_KEYS}
    steps = [step for stages in timed for step in stages.denoise_step_s or ()]
    reasons = [stages.step_reason for stages in timed if stages.step_reason is not None]
    return {
        "reason": reasons[0] if reasons else None,
        **section,
        "denoise_step_s": _summary(steps) if steps and not reasons else None,
    }


def iteration_section(iteration: Iteration, unit: Unit = IMAGE) -> dict[str, Any]:
    """All that is known of one window."""
    reading = iteration.energy
    return {
        "index": iteration.index,
        unit.count: iteration.images,
        "duration_s": iteration.duration_s,
        "energy_j": reading.gpu_energy_j,
        "energy_above_idle_j": iteration.energy_above_idle_j,
        "cpu_package_j": reading.cpu_package_j,
        "dram_j": reading.dram_j,
        "energy_per_gpu_j": {gpu.uuid: gpu.energy_j for gpu in reading.gpus},
        "sampled_energy_per_gpu_j": {gpu.uuid: gpu.sampled_energy_j for gpu in reading.gpus},
        "nodes": [asdict(node) for node in reading.nodes],
        "marks": list(reading.marks),
        "stages": _plain_stages(iteration),
        "denoiser": [None if work is None else asdict(work) for work in iteration.denoiser],
    }


def energy_section(measurement: Measurement, images: int, unit: Unit = IMAGE) -> dict[str, Any]:
    """Energy over all windows: the total, and per GPU, node and stage; beside it the CPUs'."""
    readings = [iteration.energy for iteration in measurement.iterations]
    missing = next((reading for reading in readings if reading.source == "none"), None)
    total_j = total_energy_j(measurement.iterations)
    above_idle_j = sum_or_none(i.energy_above_idle_j for i in measurement.iterations)
    return {
        "energy_source": _source(readings),
        "reason": None if missing is None else missing.reason or "not known",
        "total_energy_j": total_j,
        unit.energy: None if total_j is None else total_j / images,
        "energy_above_idle_j": above_idle_j,
        unit.energy_above_idle: None if above_idle_j is None else above_idle_j / images,
        "mean_power_w": None
        if total_j is None
        else total_j / sum(i.duration_s for i in measurement.iterations),
        "cpu_package_j": sum_or_none(reading.cpu_package_j for reading in readings),
        "dram_j": sum_or_none(reading.dram_j for reading in readings),
        "sample_period_s": next((r.sample_period_s for r in readings if r.sample_period_s is not None), None),
        "sampling": None if measurement.sampling is None else asdict(measurement.sampling),
        "gpus": _gpus(measurement, readings),
        "nodes": _nodes(readings),
        "stages": [asdict(stage) for stage in measurement.stage_energy],
        "stages_reason": measurement.stage_energy_reason,
    }


def _source(readings: Sequence[WindowEnergy]) -> str:
    """The weakest source of any window: what holds for all of them."""
    sources = {reading.source for reading in readings}
    return next(source for source in ("none", "sampled_power", "nvml_counter") if source in sources)


def _gpus(measurement: Measurement, readings: Sequence[WindowEnergy]) -> list[dict[str, Any]]:
    by_uuid: dict[str, list[Any]] = {}
    for reading in readings:
        for gpu in reading.gpus:
            by_uuid.setdefault(gpu.uuid, []).append(gpu)
    return [
        {
            "node": windows[0].node,
            "uuid": uuid,
            "name": windows[0].name,
            "energy_source": windows[0].source,
            "energy_j": sum(gpu.energy_j for gpu in windows),
            "sampled_energy_j": sum_or_none(gpu.sampled_energy_j for gpu in windows),
            "idle_power_w": measurement.idle_power_w.get(uuid),
            "power_limit_w": measurement.power_limit_w.get(uuid),
            "counter_period_s": measurement.counter_period_s.get(uuid),
        }
        for uuid, windows in by_uuid.items()
    ]


def _nodes(readings: Sequence[WindowEnergy]) -> list[dict[str, Any]]:
    by_name: dict[str, list[Any]] = {}
    for reading in readings:
        for node in reading.nodes:
            by_name.setdefault(node.node, []).append(node)
    return [
        {
            "node": name,
            "gpu_energy_j": sum_or_none(node.gpu_energy_j for node in windows),
            "cpu_package_j": sum_or_none(node.cpu_package_j for node in windows),
            "dram_j": sum_or_none(node.dram_j for node in windows),
            "cpu_reason": next((node.cpu_reason for node in windows if node.cpu_reason is not None), None),
        }
        for name, windows in by_name.items()
    ]


def memory_section(ranks: Sequence[RankMemory]) -> dict[str, Any]:
    """The largest figures over the ranks, where the peak was, and every rank's own."""
    known = [rank for rank in ranks if rank.peak_allocated_bytes is not None]
    # Ranks report alike; a peak over some of them could miss the largest.
    is_whole = bool(ranks) and len(known) == len(ranks)
    worst = max(known, key=lambda rank: rank.peak_allocated_bytes or 0) if is_whole else None
    reasons = [rank.reason for rank in ranks if rank.reason is not None]
    return {
        "peak_memory_bytes": None if worst is None else worst.peak_allocated_bytes,
        "peak_rank": None if worst is None else worst.rank,
        "peak_stage": None if worst is None else worst.peak_stage,
        "reason": None if worst is not None else (reasons[0] if reasons else "no rank reported its memory"),
        "peak_reserved_bytes": _largest(ranks, lambda rank: rank.peak_reserved_bytes),
        "driver_used_bytes": _largest(ranks, lambda rank: rank.driver_used_bytes),
        "host_rss_peak_bytes": _largest(ranks, lambda rank: rank.host_rss_peak_bytes),
        "parameter_bytes": _largest(ranks, lambda rank: sum(rank.parameter_bytes.values())),
        "ranks": [asdict(rank) for rank in ranks],
    }


def parallel_section(parallel: Parallelism) -> dict[str, Any]:
    """Degrees by name, and the number of processes they make."""
    return {**asdict(parallel), "world_size": parallel.world_size}


def _largest(ranks: Sequence[RankMemory], figure: Callable[[RankMemory], int | None]) -> int | None:
    values = [figure(rank) for rank in ranks]
    return None if not values or None in values else max(value for value in values if value is not None)


def _summary(values: Sequence[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    return None if not known or len(known) < len(values) else _plain_summary(summarize(known))


def _plain_summary(summary: Summary) -> dict[str, Any]:
    return {**asdict(summary), "ci95_half_width": summary.ci95_half_width}


def _plain_stages(iteration: Iteration) -> dict[str, Any] | None:
    if iteration.stages is None:
        return None
    stages = asdict(iteration.stages)
    return {
        **stages,
        "denoise_step_s": None if stages["denoise_step_s"] is None else list(stages["denoise_step_s"]),
    }
