"""One run of the report as the page's script reads it: plain data, taken from results.json."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import MODES
from mlenergy.diffusion.models.spec import Mode
from mlenergy.diffusion.report.quality_view import values_text
from mlenergy.diffusion.results.plausibility import DOUBTFUL
from mlenergy.diffusion.results.units import VIDEO, unit_of

STAGES = ("text_encode", "denoise", "vae_decode", "other")  # the parts of a window, in the order of time
_DEGREES: tuple[Mode, ...] = ("ulysses", "ring", "cfg", "data", "pipefusion", "tensor")
_NOT_MEASURED = "not in this result"


def row_of(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Everything that the table and the charts show of a run.

    Args:
        result: content of results.json, of any version.
        name: of its folder, relative to the folder that is reported.

    Raises:
        KeyError, TypeError, ValueError: the content is not that of a result.
    """
    plan = result["configuration"]
    unit = unit_of(result)
    time = result["statistics"][unit.time]
    energy = (result["statistics"] or {}).get(unit.energy)
    measured = result.get("energy_measurement") or {}
    memory = result.get("memory") or {}
    on_gpu = plan["device"] == "cuda"
    return {
        "name": name,
        "source": "measured",
        "task": task_of(result),
        "model": str(result["model_id"]),
        "random": result.get("weights") == "random",
        "parameters": (plan.get("model") or {}).get("parameters"),
        "gpu": str(plan.get("device_name") or plan["device"]),
        "gpus": plan["parallel"]["world_size"],
        "on_gpu": on_gpu,
        "parallel": parallel_text(plan["parallel"]),
        "engine": plan.get("engine", "xdit"),
        "batch": result["batch_size"],
        "width": plan["width_px"],
        "height": plan["height_px"],
        **_of_video(result),
        "steps": plan["steps"],
        "precision": str(plan["dtype"]),
        "options": options_text(plan),
        "seed": plan["seed"],
        "s": result[unit.mean_time],
        "s_ci": time.get("ci95_half_width") if time else None,
        "s_ci_reason": (time or {}).get("ci95_reason"),
        "latency": result["generation_time"] / len(result["iterations"]),
        "ips": result[unit.throughput],
        "j": result[unit.energy],
        "j_ci": (energy or {}).get("ci95_half_width"),
        "j_reason": measured.get("reason") or _NOT_MEASURED,
        "energy_source": measured.get("energy_source"),
        "w": measured.get("mean_power_w"),
        "gb": result["peak_memory_gb"],
        "gb_reason": memory.get("reason") or _NOT_MEASURED,
        "mfu": result.get("mfu"),
        "quality": values_text(result.get("quality") or {}),
        "windows": len(result["iterations"]),
        "date": str(result["date"]),
        "torch": (result["environment"].get("versions") or {}).get("torch"),
        "doubtful": any(w["code"] in DOUBTFUL for w in result.get("warnings") or ()),
        "warnings": [[str(w["code"]), str(w["message"])] for w in result.get("warnings") or ()],
        "stages": stage_seconds(result),
        "stages_reason": (result.get("stages") or {}).get("reason") or _NOT_MEASURED,
        "stage_energy": stage_joules(result),
        "stage_energy_reason": measured.get("stages_reason") or _NOT_MEASURED,
    }


def task_of(result: Mapping[str, Any]) -> str:
    """The workload's name; every result before other workloads existed is text to image."""
    made = f"text-to-{unit_of(result).name}"
    return str(result.get("task") or result["configuration"].get("task") or made)


def _of_video(result: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of videos alone: frames, their rate, frames made in a second, seconds per video second."""
    if unit_of(result) != VIDEO:
        return {}
    return {
        "frames": result["num_frames"],
        "fps": result["fps"],
        "frames_per_s": result["throughput_frames_per_sec"],
        "real_time": result["real_time_factor"],
    }


def parallel_text(parallel: Mapping[str, Any]) -> str:
    """Degrees above 1 as a product, with the names that the command line gives them."""
    shown = [f"{MODES[mode].label} {parallel[mode]}" for mode in _DEGREES if parallel.get(mode, 1) > 1]
    if parallel.get("parallel_vae"):
        shown.append(MODES["parallel-vae"].label)
    return " × ".join(shown)


def options_text(plan: Mapping[str, Any]) -> str:
    """Optimizations that are not at their default, and the engine's."""
    off = asdict(Optimizations())
    used = plan.get("knobs") or {}
    shown = ["class-conditional"] if (plan.get("model") or {}).get("conditioning") == "class" else []
    shown += [
        name if value is True else f"{name} {value}"
        for name, value in used.items()
        if name in off and value != off[name]
    ]
    if plan.get("lora"):
        shown.append("LoRA")
    return ", ".join(shown)


def stage_seconds(result: Mapping[str, Any]) -> dict[str, float] | None:
    """Mean seconds of a window in each stage; None unless all are known."""
    stages = result.get("stages") or {}
    means = {stage: (stages.get(f"{stage}_s") or {}).get("mean") for stage in STAGES}
    known = {stage: mean for stage, mean in means.items() if mean is not None}
    return known if len(known) == len(STAGES) else None


def stage_joules(result: Mapping[str, Any]) -> dict[str, float] | None:
    """Mean joules of a window in each stage whose energy is known; what no stage has is `other`."""
    measured = result.get("energy_measurement") or {}
    known = {
        str(s["stage"]): s["energy_j"] for s in measured.get("stages") or () if s["energy_j"] is not None
    }
    total_j = result.get("total_energy_j")
    if not known or total_j is None:
        return None
    rest_j = total_j / len(result["iterations"]) - sum(known.values())
    # A stage's energy is read by interpolation, so that the parts can exceed the whole by its error.
    return {**known, "other": known.get("other", 0.0) + max(0.0, rest_j)}


def details_of(result: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Content of a run's panel: its command, its folder, and its environment in lines."""
    environment = result["environment"]
    return {
        "command": command_of(environment),
        "folder": str(folder),
        "environment": environment_lines(environment),
    }


def command_of(environment: Mapping[str, Any]) -> str | None:
    """The command line as a shell takes it; secrets were removed before the result was written."""
    words = environment.get("command_line")
    return shlex.join(str(word) for word in words) if words else None


def environment_lines(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what the numbers depend on."""
    source = environment.get("source") or {}
    lines = [
        ("program", " ".join(str(part) for part in (source.get("version"), source.get("commit")) if part)),
        ("source changed", {True: "yes", False: "no", None: ""}[source.get("dirty")]),
        ("Python", str(environment.get("python") or "")),
        ("platform", str(environment.get("platform") or "")),
        ("container", str(environment.get("container") or "")),
        ("CUDA of torch", str(environment.get("torch_cuda") or "")),
    ]
    for node in environment.get("nodes") or ():
        gpus = ", ".join(
            str(gpu.get("name"))
            + (f" at {gpu['power_limit_w']:g} W" if gpu.get("power_limit_w") is not None else "")
            for gpu in node.get("gpus") or ()
        )
        facts = [str(node.get("cpu") or ""), f"{node['cpu_cores']} cores" if node.get("cpu_cores") else ""]
        facts += [f"driver {node['driver']}" if node.get("driver") else "", gpus]
        lines.append((f"host {node.get('hostname')}", ", ".join(fact for fact in facts if fact)))
    versions = environment.get("versions") or {}
    lines.append(
        ("packages", ", ".join(f"{name} {version}" for name, version in versions.items() if version))
    )
    variables = environment.get("environment_variables") or {}
    lines.append(("variables", ", ".join(f"{name}={value}" for name, value in variables.items())))
    return [(name, value) for name, value in lines if value]
