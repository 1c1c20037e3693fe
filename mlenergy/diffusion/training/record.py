"""The record of a training: its loss curve, and its seconds, joules and bytes, like those of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlenergy.diffusion.measure.samples import Measurement, sum_or_none

_NOT_ALL = "a part of the training has none: see segments"


def segment_of(
    measurement: Measurement, first_step: int, last_step: int, devices: Sequence[str]
) -> dict[str, Any]:
    """Figures of the steps between two checkpoints, as plain data.

    first_step, last_step: counted from 1, both included.
    """
    windows = measurement.iterations
    energies = [window.energy for window in windows]
    allocated = [memory.peak_allocated_bytes for memory in measurement.memory]
    known = [one for one in allocated if one is not None]
    return {
        "first_step": first_step,
        "last_step": last_step,
        "images": sum(window.images for window in windows),
        "duration_s": sum(window.duration_s for window in windows),
        "energy_j": sum_or_none(energy.gpu_energy_j for energy in energies),
        "energy_source": energies[0].source,
        "energy_reason": next((energy.reason for energy in energies if energy.reason), None),
        "energy_above_idle_j": sum_or_none(window.energy_above_idle_j for window in windows),
        "cpu_package_j": sum_or_none(energy.cpu_package_j for energy in energies),
        "dram_j": sum_or_none(energy.dram_j for energy in energies),
        "gpu_energy_j": _per_gpu(measurement),
        "peak_memory_bytes": max(known) if len(known) == len(allocated) else None,
        "peak_memory_reason": next((memory.reason for memory in measurement.memory if memory.reason), None),
        "host_rss_peak_bytes": sum(memory.host_rss_peak_bytes for memory in measurement.memory),
        "windows": [
            {"images": window.images, "duration_s": window.duration_s, "energy_j": window.energy.gpu_energy_j}
            for window in windows
        ],
        "warnings": [asdict(warning) for warning in measurement.warnings],
        "idle_power_w": measurement.idle_power_w,
        "devices": list(devices),
    }


def training_record(
    request: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
    segments: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    state: str,
) -> dict[str, Any]:
    """The content of training.json.

    Args:
        request: options, as the folder was claimed for.
        curve: rows of the loss curve.
        segments: of all sessions, in order.
        facts: of the model, the data, the LoRA and the machine.
        state: complete, interrupted or failed.
    """
    duration_s = sum(float(one["duration_s"]) for one in segments)
    images = sum(int(one["images"]) for one in segments)
    energy_j = sum_or_none(one["energy_j"] for one in segments)
    peaks = [one["peak_memory_bytes"] for one in segments]
    reason = next((one["energy_reason"] for one in segments if one["energy_reason"]), None)
    return {
        "schema_version": 1,
        "kind": "training",
        "state": state,
        **facts,
        "request": dict(request),
        "steps": len(curve),
        "images": images,
        "duration_s": duration_s,
        "steps_per_second": len(curve) / duration_s if duration_s > 0 else None,
        "images_per_second": images / duration_s if duration_s > 0 else None,
        "energy_j": energy_j,
        "energy_per_image_j": None if energy_j is None or not images else energy_j / images,
        "energy_source": _one_of([one["energy_source"] for one in segments]),
        "energy_reason": None if energy_j is not None else reason or _NOT_ALL,
        "cpu_package_j": sum_or_none(one["cpu_package_j"] for one in segments),
        "dram_j": sum_or_none(one["dram_j"] for one in segments),
        "peak_memory_bytes": None if None in peaks or not peaks else max(peaks),
        "peak_memory_reason": next(
            (one["peak_memory_reason"] for one in segments if one["peak_memory_reason"]), None
        ),
        "host_rss_peak_bytes": max((one["host_rss_peak_bytes"] for one in segments), default=None),
        "warnings": [warning for one in segments for warning in one["warnings"]],
        "loss_curve": list(curve),
        "segments": list(segments),
    }


def _per_gpu(measurement: Measurement) -> dict[str, float]:
    joules: dict[str, float] = {}
    for window in measurement.iterations:
        for gpu in window.energy.gpus:
            joules[gpu.uuid] = joules.get(gpu.uuid, 0.0) + gpu.energy_j
    return joules


def _one_of(names: Sequence[str]) -> str:
    """The one name of all, or that it changed between two sessions."""
    return names[0] if len(set(names)) == 1 else "mixed" if names else "none"
