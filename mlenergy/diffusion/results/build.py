"""The versioned result, built from what was measured: every figure, with its unit in its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.config.dtype import slow_dtype
from mlenergy.diffusion.config.presets import preset_section
from mlenergy.diffusion.results.executed import PlannedWork, executed_section, work_that_differs
from mlenergy.diffusion.results.plausibility import implausible
from mlenergy.diffusion.results.sections import (
    energy_section,
    iteration_section,
    memory_section,
    parallel_section,
    stage_section,
    statistics_section,
    total_energy_j,
)
from mlenergy.diffusion.results.units import IMAGE, unit_made

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.measure.samples import Iteration, Measurement
    from mlenergy.diffusion.prompts.sampling import PromptSet, Request

_EFFICIENCY_AT_THE_TOP = ("tflops_per_gpu", "mfu", "j_per_tflop")
# Of results of images; schema/results-v1.json describes them, results-v2.json those of videos.
SCHEMA_VERSION = IMAGE.schema_version
SCHEMA_MINOR_VERSION = 3  # counts added keys; docs/results.md lists them
VIDEO_SCHEMA_MINOR_VERSION = 0


@dataclass(frozen=True)
class RunRecord:
    """Everything that a result is built from, but its images' file names."""

    plan: Plan
    measurement: Measurement  # iteration k holds the next `images` requests of the set
    prompts: PromptSet  # in order, at least as many as there are images
    environment: Mapping[str, Any]  # names, versions and settings of the machines, as plain data
    load: Sequence[Mapping[str, Any]] | None = None  # every rank's LoadReport; None leaves the key out
    efficiency: Mapping[str, Any] | None = None  # of `efficiency_section`; None leaves its keys out
    planned: PlannedWork = field(default_factory=PlannedWork)  # of the denoiser on each rank

    @property
    def completed(self) -> int:
        """Images that were made in the measured windows."""
        return sum(iteration.images for iteration in self.measurement.iterations)

    @property
    def measured_requests(self) -> Sequence[Request]:
        """The requests of these images, in order."""
        return self.prompts.requests[: self.completed]


def build_result(
    record: RunRecord, images: Sequence[str | None], now: datetime | None = None
) -> dict[str, Any]:
    """The content of results.json.

    Args:
        record: what was run and measured.
        images: per image its file's name relative to the result folder, None where it is not saved.
        now: date of the result; the present by default.

    Raises:
        ValueError: no iteration was measured, or images, prompts and file names do not match in number.
    """
    plan, measurement, efficiency = record.plan, record.measurement, record.efficiency
    iterations, completed, requests = measurement.iterations, record.completed, record.measured_requests
    _check_counts(completed, record.prompts, images)
    duration_s = sum(iteration.duration_s for iteration in iterations)
    energy_j = total_energy_j(iterations)
    memory = memory_section(measurement.memory)
    peak_bytes = memory["peak_memory_bytes"]
    unit = unit_made(plan.spec.family.output)
    energy_each_j = None if energy_j is None else energy_j / completed
    result = {
        "schema_version": unit.schema_version,
        "schema_minor_version": VIDEO_SCHEMA_MINOR_VERSION if plan.makes_video else SCHEMA_MINOR_VERSION,
        **({"unit": unit.name} if plan.makes_video else {}),
        "date": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
        "model_id": plan.spec.model_id,
        "weights": plan.weights_kind,
        "batch_size": plan.batch_size,
        "completed": completed,
        "generation_time": duration_s,
        unit.throughput: completed / duration_s,
        unit.mean_time: duration_s / completed,
        "total_energy_j": energy_j,
        unit.energy: energy_each_j,
        **(video_figures(plan, duration_s / completed, energy_each_j) if plan.makes_video else {}),
        "peak_memory_gb": None if peak_bytes is None else peak_bytes / 1e9,
        **({} if efficiency is None else {key: efficiency[key] for key in _EFFICIENCY_AT_THE_TOP}),
        "first_call_s": measurement.first_call_s,
        "warmup_s": list(measurement.warmup_s),
        "statistics": statistics_section(iterations, unit),
        "stages": stage_section(iterations),
        "energy_measurement": energy_section(measurement, completed, unit),
        "memory": memory,
        "executed": executed_section(plan, record.planned, iterations),
        "executed_failed": work_that_differs(record.planned, iterations),
        **({} if efficiency is None else {"efficiency": dict(efficiency)}),
        "warnings": [asdict(warning) for warning in measurement.warnings] + plan_warnings(plan),
        "configuration": configuration(plan),
        "provenance": record.prompts.provenance,
        **({} if record.load is None else {"load": [dict(rank) for rank in record.load]}),
        "environment": dict(record.environment),
        "iterations": [iteration_section(iteration, unit) for iteration in iterations],
        "prompts": [request.prompt for request in requests],
        "generation_results": _outputs(iterations, requests, images, unit.file),
    }
    warnings = [*result["warnings"], *_repeated_prompts(record), *implausible(result)]
    return {**result, "warnings": warnings}


def video_figures(plan: Plan, seconds: float, energy_j: float | None) -> dict[str, Any]:
    """Figures that videos alone have.

    Args:
        plan: of the run; its frames and their rate are known.
        seconds: per video.
        energy_j: per video; None: not known.
    """
    frames, rate = plan.num_frames, plan.fps
    if frames is None or rate is None:
        raise ValueError("a video has a number of frames and a rate")
    length_s = frames / rate
    return {
        "num_frames": frames,
        "fps": rate,
        "video_length_s": length_s,
        "throughput_frames_per_sec": frames / seconds,
        "video_seconds_per_sec": length_s / seconds,
        "real_time_factor": seconds / length_s,
        "energy_per_frame_j": None if energy_j is None else energy_j / frames,
        "energy_per_video_second_j": None if energy_j is None else energy_j / length_s,
    }


def efficiency_keys(efficiency: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that hold the section `efficiency` and its figures at the top of a result."""
    top = {key: efficiency[key] for key in _EFFICIENCY_AT_THE_TOP}
    return {**top, "efficiency": dict(efficiency)}


def plan_warnings(plan: Plan) -> list[dict[str, Any]]:
    """Entries of a result's `warnings` that are known before it runs."""
    slow = slow_dtype(plan)
    return [] if slow is None else [{"code": "slow_dtype", "message": slow}]


def configuration(plan: Plan) -> dict[str, Any]:
    """A plan as plain data: every resolved value, and what is known of the model."""
    spec = plan.spec
    model = {
        "family": spec.family.name,
        "pipeline_class": spec.family.pipeline_class,
        "guidance": spec.guidance,
        # Absent where a text steers, as in all results from before there were others.
        **({"conditioning": "class"} if plan.is_class_conditional else {}),
        "parameters": spec.parameters,
    }
    apart = ("spec", "parallel", "optimizations", "preset")
    values = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name not in apart}
    return {
        "model_id": spec.model_id,
        "model": model,
        "parallel": parallel_section(plan.parallel),
        "knobs": asdict(plan.optimizations),
        **values,
        # Absent without one, as in all results from before there were presets.
        **({} if plan.preset is None else {"preset": preset_section(plan.preset)}),
    }


def _check_counts(completed: int, prompts: PromptSet, images: Sequence[str | None]) -> None:
    if completed < 1:
        raise ValueError("no image was made, so no result can be built")
    if len(prompts.requests) < completed or len(images) != completed:
        raise ValueError(
            f"{completed} images were made of {len(prompts.requests)} requests, with {len(images)} file names"
        )


def _repeated_prompts(record: RunRecord) -> list[dict[str, str]]:
    """A warning where there were fewer prompts than images."""
    size = record.prompts.provenance.get("prompts_in_set")
    if size is None or record.completed <= size:
        return []
    text = (
        f"{record.completed} images were made of {size} prompts, so prompts repeat; "
        "each image has noise of its own"
    )
    return [{"code": "repeated_prompts", "message": text}]


def _outputs(
    iterations: Sequence[Iteration], requests: Sequence[Request], files: Sequence[str | None], key: str
) -> list[dict[str, Any]]:
    """One entry an image or video, in order; its time and energy are its share of its batch."""
    of_image = [iteration for iteration in iterations for _ in range(iteration.images)]
    return [
        {
            **asdict(request),
            "iteration": iteration.index,
            key: file,
            "time_s": iteration.duration_s / iteration.images,
            "energy_j": _share(iteration),
        }
        for request, file, iteration in zip(requests, files, of_image, strict=True)
    ]


def _share(iteration: Iteration) -> float | None:
    energy_j = iteration.energy.gpu_energy_j
    return None if energy_j is None else energy_j / iteration.images
