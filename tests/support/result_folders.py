"""Result folders with known figures, as a run writes them, for tests of what reads them."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from result_samples import NO_GPU, cpu_plan, gpu_reading, make_plan, prompt_set, rank_memory, stage_times

from mlenergy.diffusion.measure.samples import Iteration, Measurement, MeasurementWarning
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.prompts.sampling import PromptSet
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.paths import RunPaths

NODE = {
    "hostname": "node-a",
    "cpu": "Example CPU",
    "cpu_cores_usable": 64,
    "driver": "580.65",
    "gpus": [{"name": "NVIDIA H200", "uuid": uuid, "power_limit_w": 700.0} for uuid in ("GPU-a", "GPU-b")],
    "memory_bytes": 1,
}
ENVIRONMENT = {
    "source": {"version": "0.1.0", "commit": "c0ffee", "dirty": False, "reason": None},
    "versions": {"torch": "2.13.0", "xfuser": "0.7.0", "diffusers": "0.42.1"},
    "torch_cuda": "13.0",
    "python": "3.11.7",
    "nodes": [NODE],
}


@functools.cache
def _prompts(count: int) -> PromptSet:
    return prompt_set(cpu_plan(batch_size=1, benchmark_iters=count))


def result(
    seconds: Sequence[float] = (8.0, 8.4),
    joules: Sequence[float] | None = None,
    *,
    on_cpu: bool = False,
    video: bool = False,
    environment: dict[str, Any] = ENVIRONMENT,
    warnings: Sequence[tuple[str, str]] = (),
    peak_bytes: int | None = 34_000_000_000,
    images: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """Content of results.json.

    Args:
        seconds: of each window.
        joules: of each window, of two GPUs together; None: no energy.
        on_cpu: tiny/flux on a CPU instead of FLUX.1-dev on H200s.
        video: Wan 2.1 1.3B instead: 81 frames of 832x480 at 16 frames per second, of tiny/wan on a CPU 9 of
            96x64 at 8.
        environment: the record of the machine.
        warnings: code and message of each.
        peak_bytes: of both ranks.
        images: name a file for each image.
        changes: of the plan.
    """
    if video:
        spec = BY_ID["tiny/wan" if on_cpu else "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"]
        changes = {"spec": spec, "num_frames": spec.default_num_frames, "fps": spec.default_fps, **changes}
    plan = (cpu_plan if on_cpu else make_plan)(benchmark_iters=len(seconds), **changes)
    energy = [NO_GPU] * len(seconds) if joules is None else [gpu_reading(j / 2, j / 2) for j in joules]
    iterations = tuple(
        Iteration(k, plan.batch_size, s, e, stage_times(s))
        for k, (s, e) in enumerate(zip(seconds, energy, strict=True))
    )
    measurement = Measurement(
        first_call_s=2 * seconds[0],
        warmup_s=(2 * seconds[0],),
        iterations=iterations,
        memory=(rank_memory(0, peak_bytes), rank_memory(1, peak_bytes)),
        warnings=tuple(MeasurementWarning(code, message) for code, message in warnings),  # type: ignore[arg-type]
    )
    count = plan.batch_size * len(seconds)
    record = RunRecord(plan, measurement, _prompts(count), environment)
    file = "video_outputs/{}.mp4" if video else "image_outputs/{}.png"
    names = [file.format(k) if images else None for k in range(count)]
    content = build_result(replace(record), names, datetime(2026, 1, 2, tzinfo=UTC))
    return {**content, "effects_pending": False, "effects_failed": []}


def save(folder: Path, content: Any = None, name: str = "results.json", **of_result: Any) -> Path:
    """Write a result, or any content, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content or result(**of_result))
    (folder / name).write_text(text)
    return folder


def place(base: Path, **changes: Any) -> Path:
    """The folder that a run with these changes of its plan would have."""
    return RunPaths.of(make_plan(base, **changes)).folder
