"""From a plan, or from options by name, to the benchmark's command line."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.parallelism import MODES
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.workloads import TextToImage

WORKLOAD = "workload"
DEFAULT_WORKLOAD = "text-to-image"

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
    "dtype": "default_dtype",
}
# Always written, even at their defaults: without them another number of processes, or another machine,
# could resolve the same words otherwise. The device is left out, so that a plan made on a machine without a
# GPU can be taken to one with.
_ALWAYS = {"engine", "ulysses_degree", "ring_degree", "model_id", "base_dir", "batch_size"}


def torchrun_line(plan: Plan) -> str:
    """The command that runs the plan on one machine, quoted for a shell."""
    return shlex.join(["torchrun", f"--nproc_per_node={plan.parallel.world_size}", *benchmark_words(plan)])


def benchmark_words(plan: Plan) -> list[str]:
    """The benchmark module and its options: those that have to be there to resolve to this plan again."""
    words = ["-m", "mlenergy.diffusion.benchmark"]
    for field in fields(BenchmarkArgs):
        words += _option(field, f"--{field.name}", _run_value(plan, field.name), field.default)
    words.append("workload:text-to-image")
    for field in fields(TextToImage):
        default = getattr(plan.spec, _IN_SPEC[field.name]) if field.name in _IN_SPEC else field.default
        owner = plan.spec if field.name == "model_id" else plan
        value = getattr(owner, _IN_PLAN.get(field.name, field.name))
        words += _option(field, f"--workload.{field.name}", value, default)
    return words


def _run_value(plan: Plan, name: str) -> Any:
    optimizations = plan.optimizations.options
    if name in optimizations:
        return optimizations[name]
    if name == "use_cfg_parallel":
        return plan.parallel.cfg > 1
    if name in _IN_PARALLEL:
        return getattr(plan.parallel, _IN_PARALLEL[name])
    # Options that say how to start, not what to do (dry_run, debug, ...), have no place in a plan.
    return MISSING if name == "device" else getattr(plan, name, MISSING)


def _option(field: Field[Any], name: str, value: Any, default: Any) -> Iterator[str]:
    if value is MISSING or value is None or (value == default and field.name not in _ALWAYS):
        return
    if isinstance(value, bool):
        yield name if value else name.replace("--", "--no_", 1).replace("--no_workload.", "--workload.no_")
        return
    if isinstance(value, str) and value.startswith("-"):
        yield f"{name}={value}"  # as a word of its own it would be taken for an option
        return
    yield name
    for one in value if isinstance(value, tuple) else (value,):
        yield repr(one) if isinstance(one, float) else str(one)


def to_argv(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The benchmark's command line; None leaves an option at its default."""
    workload = options.get(WORKLOAD) or DEFAULT_WORKLOAD
    given = {name: value for name, value in options.items() if name != WORKLOAD and value is not None}
    of_run = [word for name in given if not _of_workload(name) for word in _words(name, given[name])]
    of_workload = [word for name in given if _of_workload(name) for word in _words(name, given[name])]
    return (*of_run, f"{WORKLOAD}:{workload}", *of_workload)


def _of_workload(name: str) -> bool:
    return name.startswith(f"{WORKLOAD}.")


def _words(name: str, value: Any) -> list[str]:
    if value is True:
        return [f"--{name}"]
    if value is False:
        group, dot, own = name.rpartition(".")
        return [f"--{group}{dot}no-{own}"]
    if isinstance(value, (list, tuple)):
        return [f"--{name}", *(str(item) for item in value)]
    # A text that begins with a hyphen would be taken for the next option.
    return [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]
