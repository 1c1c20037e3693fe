"""Needs of a plan, for `mlenergy plan`: memory, work, bytes sent, and other ways to share it out."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.cost.size import ShareOut, Sizing, size_plan
from mlenergy.diffusion.environment.gpus import GIB
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.report.lines import number, parallelism_text
from mlenergy.diffusion.report.plan_view import plan_as_dict, print_plan

_MOST_ROWS = 16
_WIDTH_PIPED = 150  # a pipe has no width of its own


def print_sized_plan(
    plan: Plan, processes: int | None, gpu_memory_gib: float | None, *, as_json: bool
) -> None:
    """Print the plan and what it needs; where that is not known, the plan and the reason.

    Args:
        plan: what would run.
        processes: number of processes to compare ways for; None: as many as the plan's own degrees make.
        gpu_memory_gib: of one GPU, to tell what fits; None: not told.
        as_json: for programs.
    """
    sizing: Sizing | None = None
    reason: str | None = None
    try:
        sizing = size_plan(plan, processes=processes, gpu_memory_gib=gpu_memory_gib)
    except UserError as error:
        reason = str(error)
    if as_json:
        _print_json(plan, sizing, reason)
        return
    print_plan(plan)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_PIPED, highlight=False)
    if sizing is None:
        console.print(f"Its needs are not known: {reason}")
        return
    _print_needs(console, sizing)
    console.print(_combinations(sizing, plan.steps))
    for note in sizing.notes:
        console.print(f"  {note}", soft_wrap=True)


def _print_json(plan: Plan, sizing: Sizing | None, reason: str | None) -> None:
    import json

    needs: dict[str, Any] = {"sizing": None if sizing is None else sizing.as_dict(), "sizing_reason": reason}
    print(json.dumps(plan_as_dict(plan) | needs, indent=2))


def _print_needs(console: Console, sizing: Sizing) -> None:
    own = sizing.own
    parts = ", ".join(
        f"{name} {number(size / GIB)}" for name, size in own.memory.parameter_bytes.items() if size
    )
    work = sizing.tflops
    rows = {
        "weights": f"{number(sum(own.memory.parameter_bytes.values()) / GIB)} GiB a rank ({parts})",
        "peak memory": f"about {number(own.memory.peak_bytes / GIB)} GiB a rank, in {own.memory.peak_stage}"
        + _fits_text(own, sizing.gpu_memory_gib),
        "work": f"{number(work['total'])} TFLOPs an iteration, {number(work['denoise_step'])} a step",
        "sent": f"{_mebibytes(own)} MiB by each rank in a step",
    }
    for name, text in rows.items():
        console.print(f"  {name:14s} {text}", soft_wrap=True)


def _combinations(sizing: Sizing, steps: int) -> Table:
    processes = "1 process" if sizing.processes == 1 else f"{sizing.processes} processes"
    table = Table(title=f"Ways to use {processes}, best guess first", title_justify="left")
    for heading in ("engine", "degrees", "TFLOPs/rank", "MiB sent/step", "peak GiB", "fits"):
        table.add_column(heading, justify="left" if heading in ("engine", "degrees", "fits") else "right")
    for way in sizing.combinations[:_MOST_ROWS]:
        fits = "-" if way.memory.fits is None else "yes" if way.memory.fits else "no"
        peak = number(way.memory.peak_bytes / GIB)
        degrees = _degrees(way.parallel, steps)
        table.add_row(way.engine, degrees, number(way.tflops_per_rank), _mebibytes(way), peak, fits)
    return table


def _degrees(parallel: Parallelism, steps: int) -> str:
    return parallelism_text(asdict(parallel), parallel.world_size, steps)


def _mebibytes(way: ShareOut) -> str:
    return number(way.communication.total_bytes / 2**20)


def _fits_text(way: ShareOut, gpu_memory_gib: float | None) -> str:
    if way.memory.fits is None:
        return ""
    return f"; {'fits' if way.memory.fits else 'does not fit'} into {gpu_memory_gib:g} GiB"
