"""A candidate's settings: in words, as plain data, and as a command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.config.argv import WORKLOAD, to_argv

if TYPE_CHECKING:
    from mlenergy.diffusion.config.args import BenchmarkArgs
    from mlenergy.diffusion.config.plan import Plan

# Written out even at their defaults: they are what was searched, or decides what the words mean.
_ALWAYS = frozenset({"engine", "ulysses_degree", "ring_degree", "workload.batch_size"})


def label_of(plan: Plan) -> str:
    """What tells a candidate from the others, in a few words."""
    optimizations = plan.optimizations
    compiled = (
        "not compiled" if optimizations.compile_mode is None else f"compiled ({optimizations.compile_mode})"
    )
    limit = "" if plan.power_limit_w is None else f", {plan.power_limit_w:g} W"
    return f"{way_of(plan)}, {optimizations.attention} attention, {compiled}{limit}"


def way_of(plan: Plan) -> str:
    """The same without its optimizations: processes, engine, degrees and batch."""
    parallel = plan.parallel
    degrees = [m if m == "parallel-vae" else f"{m} {getattr(parallel, m)}" for m in parallel.modes]
    return ", ".join((f"{parallel.world_size} x {plan.engine}", *degrees, f"batch {plan.batch_size}"))


def settings_of(plan: Plan) -> dict[str, Any]:
    """The same as plain data, with what makes its images differ from the exact ones."""
    inexact = plan.approximation
    return {
        "engine": plan.engine,
        "devices": plan.parallel.world_size,
        "parallel": asdict(plan.parallel),
        "batch_size": plan.batch_size,
        "attention_backend": plan.optimizations.attention,
        "compile": plan.optimizations.compile_mode or "off",
        "power_limit_w": plan.power_limit_w,
        "lossy": [*([] if inexact is None else [inexact]), *plan.optimizations.lossy],
    }


def options_of(args: BenchmarkArgs, plan: Plan) -> dict[str, Any]:
    """The run's options by full name that make this plan, those at their defaults left out."""
    work = args.workload
    run = {field.name: (getattr(args, field.name), field.default) for field in fields(args)}
    run |= {f"{WORKLOAD}.{field.name}": (getattr(work, field.name), field.default) for field in fields(work)}
    run["engine"] = (plan.engine, None)
    return {
        name: value
        for name, (value, default) in run.items()
        if name != WORKLOAD and (value != default or name in _ALWAYS)
    }


def command_line(options: Mapping[str, Any]) -> str:
    """The command that measures these settings, quoted for a shell."""
    return shlex.join(["mlenergy", "run", *to_argv(options)])
