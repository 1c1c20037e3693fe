"""The settings of a plan: in words, as plain data, and as a command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.argv import VIDEO_WORKLOAD, WORKLOAD, to_argv
from mlenergy.diffusion.config.plan import Plan

# Written even at their defaults: searched axes, and options that decide what the others mean.
_ALWAYS = frozenset({"engine", "ulysses_degree", "ring_degree", "workload.batch_size"})


def label_of(plan: Plan) -> str:
    """The searched settings in a few words."""
    optimizations = plan.optimizations
    compiled = (
        "not compiled" if optimizations.compile_mode is None else f"compiled ({optimizations.compile_mode})"
    )
    exact = "".join(f", {record.option}" for record in optimizations.in_use.values() if record.is_searched)
    limit = "" if plan.power_limit_w is None else f", {plan.power_limit_w:g} W"
    return f"{layout_of(plan)}, {optimizations.attention} attention, {compiled}{exact}{limit}"


def layout_of(plan: Plan) -> str:
    """Processes, engine, degrees and batch size in a few words."""
    parallel = plan.parallel
    degrees = [m if m == "parallel-vae" else f"{m} {getattr(parallel, m)}" for m in parallel.modes]
    return ", ".join((f"{parallel.world_size} x {plan.engine}", *degrees, f"batch {plan.batch_size}"))


def settings_of(plan: Plan) -> dict[str, Any]:
    """The searched settings as plain data, with the reasons why images differ from the exact ones."""
    inexact = plan.approximation
    return {
        "engine": plan.engine,
        "devices": plan.parallel.world_size,
        "parallel": asdict(plan.parallel),
        "batch_size": plan.batch_size,
        "attention_backend": plan.optimizations.attention,
        "compile": plan.optimizations.compile_mode or "off",
        "exact_options": [
            record.option for record in plan.optimizations.in_use.values() if record.is_searched
        ],
        "power_limit_w": plan.power_limit_w,
        "lossy": [*([] if inexact is None else [inexact]), *plan.optimizations.lossy],
    }


def options_of(args: BenchmarkArgs, plan: Plan) -> dict[str, Any]:
    """The run's options by full name that make this plan, those at their defaults left out."""
    work = args.workload
    run = {field.name: (getattr(args, field.name), field.default) for field in fields(args)}
    run |= {f"{WORKLOAD}.{field.name}": (getattr(work, field.name), field.default) for field in fields(work)}
    run["engine"] = (plan.engine, None)
    if plan.preset is not None:
        # What it has come to for these degrees, so that no run decides it again.
        del run["preset"]
        run |= {name: (value, None) for name, value in plan.preset.options.items()}
    options = {
        name: value
        for name, (value, default) in run.items()
        if name != WORKLOAD and (value != default or name in _ALWAYS)
    }
    return {**options, WORKLOAD: VIDEO_WORKLOAD} if plan.makes_video else options


def command_line(options: Mapping[str, Any]) -> str:
    """The command that measures these settings, quoted for a shell."""
    return shlex.join(["mlenergy", "run", *to_argv(options)])
