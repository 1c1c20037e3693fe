"""A finished run on one screen: its cost, its spread, and where its files lie."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Group, RenderableType
from rich.text import Text

from mlenergy.diffusion.measure.samples import WINDOW_PARTS, WindowPart
from mlenergy.diffusion.report.forecast_lines import forecast_rows
from mlenergy.diffusion.report.lines import console_for, energy, labelled, number, parallelism_text, title
from mlenergy.diffusion.report.optimization_lines import effect_rows, lossy_rows
from mlenergy.diffusion.report.preset_lines import preset_summary
from mlenergy.diffusion.results.digest import is_as_written
from mlenergy.diffusion.results.units import unit_of

if TYPE_CHECKING:
    from mlenergy.diffusion.results.paths import RunPaths

Result = Mapping[str, Any]

_SOURCES = {
    "nvml_counter": "the driver's energy counter",
    "sampled_power": "sampled power",
}
_STAGE_LABELS: dict[WindowPart, str] = {
    "text_encode": "text",
    "denoise": "denoising",
    "vae_decode": "VAE",
    "other": "other",
}


def print_summary(result: Result, paths: RunPaths, stream: TextIO) -> None:
    """Print the summary, in colour on a terminal, as plain lines in a pipe. No file has to exist yet."""
    console_for(stream).print(render_summary(result, paths.folder), soft_wrap=True)


def print_effects(result: Result, stream: TextIO, warnings: Sequence[Mapping[str, Any]] = ()) -> None:
    """Print what was found out after the summary: effects, similarity, and warnings that have come since."""
    console_for(stream).print(render_effects(result, warnings), soft_wrap=True, end="")


def print_finished(result: Result, paths: RunPaths, stream: TextIO) -> None:
    """Print the summary of a result that was there before, and how to measure again."""
    print_summary(result, paths, stream)
    print_effects(result, stream)
    if not is_as_written(result):
        text = f"{paths.results} was changed after it was written"
        print(f"{text}; mlenergy doctor {shlex.quote(str(paths.folder))} says more", file=stream)
    print(f"{paths.results} is complete; --overwrite_results measures again", file=stream)


def render_summary(result: Result, folder: Path) -> RenderableType:
    """The summary of the measured numbers; `folder` is where results.json lies, or will lie.

    `render_effects` goes on where this ends.
    """
    unit = unit_of(result)
    rows = [
        ("model", _model(result)),
        ("ran on", _devices(result)),
        ("engine", f"{result['configuration']['engine']}, {result['configuration']['dtype']}"),
        ("parallelism", _parallelism(result)),
        ("work", _work(result)),
        ("measured", _measured(result)),
        (f"{unit.count}/s", number(result[unit.throughput])),
        (f"seconds/{unit.name}", _seconds(result)),
        *_video_rates(result),
        ("energy", _energy(result)),
        *_cpu_energy(result),
        *_arithmetic(result),
        ("peak memory", _memory(result)),
        ("stages", _stages(result)),
        *forecast_rows(result),
        *preset_summary(result["configuration"]),
        *lossy_rows(result),
        (unit.count, _outputs(result, folder)),
        ("results", str(folder / "results.json")),
    ]
    each = f"{number(result[unit.mean_time])} s per {unit.name}"
    heading = title(f"{each}{_energy_each(result)}")
    return Group(heading, *labelled(rows), *_warnings(result["warnings"]))


def render_effects(result: Result, warnings: Sequence[Mapping[str, Any]] = ()) -> RenderableType:
    """Lines on what the optimizations did, and on similarity; no line where none was asked for."""
    counted = any(rank.get("flops") for rank in result["effects"] or ())
    work = _arithmetic(result) if counted else []
    return Group(*labelled([*effect_rows(result), *work]), *_warnings(warnings))


def _energy_each(result: Result) -> str:
    unit = unit_of(result)
    joules = result[unit.energy]
    return ", energy not known" if joules is None else f", {energy(joules)} per {unit.name}"


def _model(result: Result) -> str:
    model = result["configuration"]["model"]
    weights = ", random weights" if result["weights"] == "random" else ""
    condition = ", class-conditional" if model.get("conditioning") == "class" else ""
    return f"{result['model_id']} ({model['pipeline_class']}{condition}{weights})"


def _devices(result: Result) -> str:
    configuration = result["configuration"]
    world_size = configuration["parallel"]["world_size"]
    if configuration["device"] == "cpu":
        processes = "1 process" if world_size == 1 else f"{world_size} processes"
        return f"CPU, {configuration['device_name']}, {processes}{_nodes(result)}"
    return f"{world_size} x {configuration['device_name']}{_nodes(result)}"


def _nodes(result: Result) -> str:
    nodes = result["environment"].get("nodes", [])
    return f" on {len(nodes)} nodes" if len(nodes) > 1 else ""


def _parallelism(result: Result) -> str:
    parallel = result["configuration"]["parallel"]
    return parallelism_text(parallel, parallel["world_size"], result["configuration"]["steps"])


def _work(result: Result) -> str:
    plan = result["configuration"]
    scale = plan["guidance_scale"]
    guidance = "no guidance" if scale is None else f"guidance {number(scale)}"
    if (second := plan.get("guidance_scale_2")) is not None:
        boundary = plan.get("boundary_ratio")
        where = "" if boundary is None else f" (boundary {number(boundary)})"
        guidance = f"{guidance}, then {number(second)}{where}"
    size = f"{plan['width_px']}x{plan['height_px']}"
    outputs = unit_of(result).counted(plan["batch_size"])
    if plan.get("num_frames") is not None:
        size = f"{size}, {plan['num_frames']} frames at {plan['fps']} fps"
    calls = "scales" if plan["engine"] == "autoregressive" else "steps"
    return f"{outputs} of {size} per iteration, {plan['steps']} {calls}, {guidance}"


def _measured(result: Result) -> str:
    first = result["first_call_s"]
    warm = "no warm-up" if first is None else f"first call {number(first)} s"
    iterations = len(result["iterations"])
    many = "1 iteration" if iterations == 1 else f"{iterations} iterations"
    outputs = unit_of(result).counted(result["completed"])
    return f"{outputs} in {many}, {number(result['generation_time'])} s ({warm})"


def _seconds(result: Result) -> str:
    spread = result["statistics"][unit_of(result).time]
    mean = number(spread["mean"])
    if spread["ci95_half_width"] is None:
        return f"{mean} ({spread['ci95_reason']})"
    half, low, high = (number(spread[key]) for key in ("ci95_half_width", "minimum", "maximum"))
    return f"{mean} ± {half} (95 % interval of the mean), from {low} to {high}"


def _energy(result: Result) -> str:
    measured = result["energy_measurement"]
    if measured["total_energy_j"] is None:
        return f"not known: {measured['reason']}"
    unit = unit_of(result)
    each, total = energy(measured[unit.energy]), energy(measured["total_energy_j"])
    source = _SOURCES[measured["energy_source"]]
    return f"{each} per {unit.name}, {total} in all, {number(measured['mean_power_w'])} W (by {source})"


def _cpu_energy(result: Result) -> list[tuple[str, str]]:
    """Beside the GPUs' energy, never in it."""
    measured = result["energy_measurement"]
    known = {"packages": measured["cpu_package_j"], "memory": measured["dram_j"]}
    parts = [f"{name} {energy(joules)}" for name, joules in known.items() if joules is not None]
    return [("CPU energy", ", ".join(parts) + " (not part of the energy above)")] if parts else []


def _arithmetic(result: Result) -> list[tuple[str, str]]:
    """On a CPU nothing is said where nothing was counted: there is no peak to hold it against."""
    found = result.get("efficiency")
    on_gpu = result["configuration"]["device"] == "cuda"
    if found is None or (found["reason"] is not None and not on_gpu):
        return []
    if found["reason"] is not None:
        return [("arithmetic", f"not known: {found['reason']}")]
    unit = unit_of(result)
    parts = [f"{number(found[unit.tflops])} TFLOPs per {unit.name}"]
    if found["tflops_per_gpu"] is None:
        parts.append(f"{number(found['tflop_per_s'])} TFLOP/s")
    else:
        share = "" if found["mfu"] is None else f" ({found['mfu']:.1%} of its {found['peak_dtype']} peak)"
        parts.append(f"{number(found['tflops_per_gpu'])} TFLOP/s a GPU{share}")
    if found["j_per_tflop"] is not None:
        parts.append(f"{number(found['j_per_tflop'])} J per TFLOP")
    return [("arithmetic", ", ".join(parts))]


def _memory(result: Result) -> str:
    memory = result["memory"]
    if memory["peak_memory_bytes"] is None:
        host = memory["host_rss_peak_bytes"]
        beside = "" if host is None else f"; a process's resident memory peaked at {number(host / 1e9)} GB"
        return f"not known: {memory['reason']}{beside}"
    stage = "" if memory["peak_stage"] is None else f", in {memory['peak_stage'].replace('_', ' ')}"
    return f"{number(memory['peak_memory_bytes'] / 1e9)} GB on rank {memory['peak_rank']}{stage}"


def _stages(result: Result) -> str:
    stages = result["stages"]
    if any(stages[f"{part}_s"] is None for part in WINDOW_PARTS):
        return f"not known: {stages['reason']}"
    means_s = {part: stages[f"{part}_s"]["mean"] for part in WINDOW_PARTS}
    plan = result["configuration"]
    labels = dict(_STAGE_LABELS)
    if plan["engine"] == "autoregressive":
        labels["denoise"] = f"{plan['steps']} scales"
    if plan["model"].get("conditioning") == "class":
        labels["text_encode"] = "class embedding"
    return ", ".join(f"{labels[part]} {number(mean_s)} s" for part, mean_s in means_s.items())


def _video_rates(result: Result) -> list[tuple[str, str]]:
    """Figures per frame and per second of a video; none of images."""
    if "real_time_factor" not in result:
        return []
    frames = number(result["throughput_frames_per_sec"])
    speed = f"{frames} frames/s, {number(result['real_time_factor'])} s per second of video"
    joules = result["energy_per_frame_j"]
    if joules is not None:
        second = energy(result["energy_per_video_second_j"])
        speed = f"{speed}, {energy(joules)} per frame, {second} per second of video"
    return [("frames", speed)]


def _outputs(result: Result, folder: Path) -> str:
    key = unit_of(result).file
    saved = [output[key] for output in result["generation_results"] if output[key] is not None]
    if not saved:
        return "not saved"
    return f"{(folder / saved[0]).parent} ({len(saved)} files)"


def _warnings(warnings: Sequence[Mapping[str, Any]]) -> list[Text]:
    return labelled([("warning", warning["message"]) for warning in warnings], "yellow")
