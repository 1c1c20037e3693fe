"""From a plan, or from options by name, to the benchmark's command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.dtype import default_dtype
from mlenergy.diffusion.config.parallelism import MODES
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.workloads import TextToImage, TextToVideo

WORKLOAD = "workload"
DEFAULT_WORKLOAD = "text-to-image"
VIDEO_WORKLOAD = "text-to-video"

# Where an option's name is not its name in the plan.
_IN_PLAN = {"height": "height_px", "width": "width_px", "inference_steps": "steps"}
_IN_PARALLEL = {mode.option: name.replace("-", "_") for name, mode in MODES.items()} | {
    "num_pipeline_patch": "num_pipeline_patch",
    "warmup_steps": "pipefusion_warmup_steps",
}
_IN_SPEC = {
    "height": "default_height_px",
    "width": "default_width_px",
    "inference_steps": "default_steps",
    "guidance_scale": "default_guidance_scale",
    "max_sequence_length": "default_max_sequence_length",
    "dataset": "default_dataset",
    "num_frames": "default_num_frames",
    "fps": "default_fps",
    "guidance_scale_2": "default_guidance_scale_2",
    "boundary_ratio": "default_boundary_ratio",
}
_IN_NEXT_SCALE = ("top_k", "top_p")  # defaults that stand in spec.next_scale
# Always written, even at their defaults: without them another number of processes, or another machine,
# could resolve the same words otherwise. The device is left out, so that a plan made on a machine without a
# GPU can be taken to one with.
_ALWAYS = {"engine", "ulysses_degree", "ring_degree", "model_id", "base_dir", "batch_size"}
# Of a preset the options that it has come to are written.
_NOT_WRITTEN = {"device", "preset"}


def torchrun_line(plan: Plan) -> str:
    """The command that runs the plan on one machine, quoted for a shell."""
    benchmark = ("-m", "mlenergy.diffusion.benchmark", *to_argv(options_of(plan)))
    return shlex.join(["torchrun", f"--nproc_per_node={plan.parallel.world_size}", *benchmark])


def options_of(plan: Plan) -> dict[str, Any]:
    """The options by full name that have to be given to resolve to this plan again."""
    optimizations = plan.optimizations.options
    options = {}
    for field in fields(BenchmarkArgs):
        name = field.name
        if name in optimizations:
            value = optimizations[name]
        elif name == "use_cfg_parallel":
            value = plan.parallel.cfg > 1
        elif name in _IN_PARALLEL:
            value = getattr(plan.parallel, _IN_PARALLEL[name])
        else:
            # Options that say how to start, not what to do (dry_run, debug, ...), have no place in a plan.
            value = None if name in _NOT_WRITTEN else getattr(plan, name, None)
        if value != field.default or name in _ALWAYS:
            options[name] = value
    if plan.makes_video:
        options[WORKLOAD] = VIDEO_WORKLOAD
    for field in fields(TextToVideo if plan.makes_video else TextToImage):
        name = field.name
        value = plan.spec.model_id if name == "model_id" else getattr(plan, _IN_PLAN.get(name, name))
        if value != _default(plan, name, field.default) or name in _ALWAYS:
            options[f"{WORKLOAD}.{name}"] = value
    return options


def _default(plan: Plan, name: str, otherwise: Any) -> Any:
    """The value that the plan's model gives an option of the workload that is left out."""
    if name == "dtype":
        # The plan's device's: left out, so that the same words take each machine's own default.
        return default_dtype(plan.spec, plan.device)
    if name == "class_ids":
        return None
    if name == "inference_steps" and plan.schedule is not None:
        return len(plan.schedule)
    if name in _IN_NEXT_SCALE and plan.spec.next_scale is not None:
        return getattr(plan.spec.next_scale, name)
    return getattr(plan.spec, _IN_SPEC[name]) if name in _IN_SPEC else otherwise


def to_argv(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The benchmark's command line of options by full name; None and no values leave one at its default."""
    workload = options.get(WORKLOAD) or DEFAULT_WORKLOAD
    of_run: list[str] = []
    of_workload: list[str] = []
    for name, value in options.items():
        if name != WORKLOAD and value not in (None, [], ()):
            (of_workload if name.startswith(f"{WORKLOAD}.") else of_run).extend(_words(name, value))
    return (*of_run, f"{WORKLOAD}:{workload}", *of_workload)


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        group, dot, own = name.rpartition(".")
        return [f"--{name}" if value else f"--{group}{dot}no_{own}"]
    if isinstance(value, (list, tuple)):
        return [f"--{name}", *(str(item) for item in value)]
    # A text that begins with a hyphen would be taken for the next option.
    return [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]
