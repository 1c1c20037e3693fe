"""From what was measured to the versioned result: every figure, with its unit in its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.results.sections import (
    energy_section,
    iteration_section,
    memory_section,
    parallel_section,
    stage_section,
    statistics_section,
    total_energy_j,
)

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.measure.samples import Iteration, Measurement
    from mlenergy.diffusion.prompts.sampling import PromptSet, Request

_EFFICIENCY_AT_THE_TOP = ("tflops_per_gpu", "mfu", "j_per_tflop")
SCHEMA_VERSION = 1  # schema/results-v1.json describes it; a key that changes its meaning makes it 2


def build_result(
    plan: Plan,
    measurement: Measurement,
    prompt_set: PromptSet,
    environment: Mapping[str, Any],
    images: Sequence[str | None],
    now: datetime | None = None,
    load: Sequence[Mapping[str, Any]] | None = None,
    efficiency: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of results.json.

    Args:
        plan: what was run.
        measurement: what was measured; iteration k holds the next `images` requests of the set.
        prompt_set: the requests in order, at least as many as there are images.
        environment: names, versions and settings of the machines, as plain data.
        images: per image its file's name relative to the result folder, None where it was not saved.
        now: date of the result; the present by default.
        load: every rank's LoadReport as plain data, in rank order; None leaves the key out.
        efficiency: of `result_efficiency`; None leaves it and its keys at the top out.

    Raises:
        ValueError: there is no iteration, or images, prompts and file names do not match in number.
    """
    iterations = measurement.iterations
    completed = sum(iteration.images for iteration in iterations)
    _check_counts(completed, prompt_set, images)
    requests = prompt_set.requests[:completed]
    duration_s = sum(iteration.duration_s for iteration in iterations)
    energy_j = total_energy_j(iterations)
    memory = memory_section(measurement.memory)
    peak_bytes = memory["peak_memory_bytes"]
    return {
        "schema_version": SCHEMA_VERSION,
        "date": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
        "model_id": plan.spec.model_id,
        "weights": plan.weights_kind,
        "batch_size": plan.batch_size,
        "completed": completed,
        "generation_time": duration_s,
        "throughput_images_per_sec": completed / duration_s,
        "avg_time_per_image": duration_s / completed,
        "total_energy_j": energy_j,
        "energy_per_image_j": None if energy_j is None else energy_j / completed,
        "peak_memory_gb": None if peak_bytes is None else peak_bytes / 1e9,
        **({} if efficiency is None else {key: efficiency[key] for key in _EFFICIENCY_AT_THE_TOP}),
        "first_call_s": measurement.first_call_s,
        "warmup_s": list(measurement.warmup_s),
        "statistics": statistics_section(iterations),
        "stages": stage_section(iterations),
        "energy_measurement": energy_section(measurement, completed),
        "memory": memory,
        **({} if efficiency is None else {"efficiency": dict(efficiency)}),
        "warnings": [asdict(warning) for warning in measurement.warnings],
        "configuration": configuration(plan),
        "provenance": prompt_set.provenance,
        **({} if load is None else {"load": [dict(rank) for rank in load]}),
        "environment": dict(environment),
        "iterations": [iteration_section(iteration) for iteration in iterations],
        "prompts": [request.prompt for request in requests],
        "generation_results": _images(iterations, requests, images),
    }


def configuration(plan: Plan) -> dict[str, Any]:
    """A plan as plain data: every resolved value, and what is known of the model."""
    spec = plan.spec
    model = {
        "family": spec.family.name,
        "pipeline_class": spec.family.pipeline_class,
        "guidance": spec.guidance,
        "parameters": spec.parameters,
    }
    apart = ("spec", "parallel", "optimizations")
    values = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name not in apart}
    return {
        "model_id": spec.model_id,
        "model": model,
        "parallel": parallel_section(plan.parallel),
        "knobs": asdict(plan.optimizations),
        **values,
    }


def _check_counts(completed: int, prompt_set: PromptSet, images: Sequence[str | None]) -> None:
    if completed < 1:
        raise ValueError("no image was made, so there is no result")
    if len(prompt_set.requests) < completed or len(images) != completed:
        raise ValueError(
            f"{completed} images were made of {len(prompt_set.requests)} requests, "
            f"with {len(images)} file names"
        )


def _images(
    iterations: Sequence[Iteration], requests: Sequence[Request], files: Sequence[str | None]
) -> list[dict[str, Any]]:
    """One entry an image, in order; its time and energy are its share of its batch."""
    of_image = [iteration for iteration in iterations for _ in range(iteration.images)]
    return [
        {
            **asdict(request),
            "iteration": iteration.index,
            "image": file,
            "time_s": iteration.duration_s / iteration.images,
            "energy_j": _share(iteration),
        }
        for request, file, iteration in zip(requests, files, of_image, strict=True)
    ]


def _share(iteration: Iteration) -> float | None:
    energy_j = iteration.energy.gpu_energy_j
    return None if energy_j is None else energy_j / iteration.images
