"""Plans, measurements and prompt sets with known figures, for tests of what comes after measuring."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.measure.samples import (
    GpuEnergy,
    Iteration,
    Measurement,
    MeasurementWarning,
    NodeEnergy,
    RankMemory,
    Sampling,
    StageEnergy,
    StageTimes,
    WindowEnergy,
)
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.prompts.sampling import PromptOptions, PromptSet, sample_requests

NO_GPU = WindowEnergy(source="none", reason="no GPU takes part: the run is on the CPU")
ENVIRONMENT = {"hostnames": ["node-a"], "versions": {"torch": "2.13.0"}}


def make_plan(base_dir: Any = "run", **changes: Any) -> Plan:
    """FLUX.1-dev on two H200s with all its defaults, less what the changes say."""
    spec = changes.pop("spec", BY_ID["black-forest-labs/FLUX.1-dev"])
    plan = Plan(
        spec=spec,
        weights_from=spec.model_id,
        revision=None,
        engine="xdit",
        device="cuda",
        device_name="NVIDIA H200",
        parallel=Parallelism(ulysses=2),
        dtype=spec.default_dtype,
        batch_size=4,
        height_px=spec.default_height_px,
        width_px=spec.default_width_px,
        steps=spec.default_steps,
        guidance_scale=spec.default_guidance_scale,
        negative_prompt=None,
        max_sequence_length=spec.default_max_sequence_length,
        seed=42,
        dataset="bundled",
        prompt_column="prompt",
        prompt_prefix="",
        warmup_iters=1,
        benchmark_iters=4,
        save_images=True,
        base_dir=str(base_dir),
    )
    return replace(plan, **changes)


def gpu_reading(joules_a: float, joules_b: float) -> WindowEnergy:
    gpus = (
        GpuEnergy("node-a", "GPU-a", "NVIDIA H200", joules_a, sampled_energy_j=joules_a * 0.99),
        GpuEnergy("node-b", "GPU-b", "NVIDIA H200", joules_b, sampled_energy_j=joules_b * 0.99),
    )
    nodes = (
        NodeEnergy("node-a", joules_a, cpu_package_j=10.0, dram_j=1.0),
        NodeEnergy("node-b", joules_b, cpu_package_j=20.0, dram_j=2.0),
    )
    return WindowEnergy("nvml_counter", None, gpus, nodes)


def stage_times(window_s: float) -> StageTimes:
    return StageTimes(
        text_encode_s=0.1 * window_s,
        denoise_s=0.8 * window_s,
        denoise_step_s=(0.3 * window_s, 0.25 * window_s, 0.25 * window_s),
        vae_decode_s=0.08 * window_s,
        other_s=0.02 * window_s,
        postprocess_s=0.05,
    )


def rank_memory(rank: int, peak_bytes: int | None) -> RankMemory:
    return RankMemory(
        rank=rank,
        peak_allocated_bytes=peak_bytes,
        peak_reserved_bytes=None if peak_bytes is None else peak_bytes + 1000,
        driver_used_bytes=None if peak_bytes is None else peak_bytes + 2000,
        host_rss_peak_bytes=5_000_000_000 + rank,
        parameter_bytes={"transformer": 24_000_000_000, "vae": 168_000_000},
        parameter_count={"transformer": 12_000_000_000, "vae": 84_000_000},
        peak_stage=None if peak_bytes is None else "denoise",
        reason="the CPU's allocator keeps no peak" if peak_bytes is None else None,
    )


def gpu_measurement() -> Measurement:
    """Four windows of four images: 8.0, 8.2, 8.4 and 8.6 s, with 5000 + 100 k and 4000 J."""
    durations_s = (8.0, 8.2, 8.4, 8.6)
    iterations = tuple(
        Iteration(k, 4, duration_s, gpu_reading(5000.0 + 100 * k, 4000.0), stage_times(duration_s), 8000.0)
        for k, duration_s in enumerate(durations_s)
    )
    return Measurement(
        first_call_s=31.5,
        warmup_s=(31.5,),
        iterations=iterations,
        memory=(rank_memory(0, 34_000_000_000), rank_memory(1, 34_500_000_000)),
        idle_power_w={"GPU-a": 75.0, "GPU-b": 76.0},
        stage_energy=(StageEnergy("denoise", 7600.0, {"GPU-a": 4300.0, "GPU-b": 3300.0}, False, 7600 / 28),),
        counter_period_s={"GPU-a": 0.1, "GPU-b": 0.1},
        power_limit_w={"GPU-a": 700.0, "GPU-b": 700.0},
        sampling=Sampling(0.1, 0.1, 0.01, 0.002, 2),
        warnings=(
            MeasurementWarning("drift", "the last third of the iterations is 3.1 % slower than the first"),
        ),
    )


def cpu_measurement() -> Measurement:
    """Two windows of two images on a CPU: no energy, no peak of the device's memory."""
    iterations = tuple(Iteration(k, 2, 1.5 + k, NO_GPU, stage_times(1.5 + k)) for k in range(2))
    return Measurement(
        first_call_s=2.0,
        warmup_s=(2.0,),
        iterations=iterations,
        memory=(rank_memory(0, None), rank_memory(1, None)),
        stage_energy_reason="no GPU takes part",
    )


def cpu_plan(base_dir: Any = "run", **changes: Any) -> Plan:
    """tiny/flux on a CPU: two processes, batches of two, two iterations."""
    spec = changes.pop("spec", BY_ID["tiny/flux"])
    settings = {"device": "cpu", "device_name": "Example CPU 9000", "batch_size": 2, "benchmark_iters": 2}
    return make_plan(base_dir, spec=spec, **{**settings, **changes})


def prompt_set(plan: Plan) -> PromptSet:
    """The real requests of a plan."""
    count = plan.batch_size * plan.benchmark_iters
    return sample_requests(PromptOptions.from_plan(plan), count, plan.seed, plan.batch_size)
