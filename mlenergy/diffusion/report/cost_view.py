"""Needs of a plan, for `mlenergy plan`: memory, work, bytes sent, and other ways to share it out."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.cost.size import ShareOut, Sizing, size_plan
from mlenergy.diffusion.environment.gpus import GIB
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.cards import card_named, memory_bytes
from mlenergy.diffusion.report.forecast_view import Forecasts
from mlenergy.diffusion.report.lines import number, parallelism_text
from mlenergy.diffusion.report.plan_view import plan_as_dict, print_plan

_MOST_ROWS = 16
_WIDTH_PIPED = 150  # a pipe has no width of its own


@dataclass(frozen=True)
class Target:
    """GPU that a plan is sized for; what is None is not told.

    gpu: short name of its data sheet.
    memory_gib: memory of one GPU.
    calibration: file of constants, instead of the package's.
    """

    gpu: str | None = None
    memory_gib: float | None = None
    calibration: Path | None = None

    @classmethod
    def of(cls, gpu: str | None, memory_gib: float | None, calibration: Path | None) -> Target:
        """Fill the memory in from the data sheet.

        Raises:
            UserError: there is no such data sheet, or constants without a GPU.
        """
        if gpu is None:
            if calibration is not None:
                raise UserError("--calibration needs --gpu, the GPU to forecast for")
            return cls(None, memory_gib, None)
        card = card_named(gpu)
        return cls(card.name, memory_gib or memory_bytes(gpu) / GIB, calibration)


def print_sized_plan(plan: Plan, processes: int | None, target: Target, *, as_json: bool) -> None:
    """Print the plan and what it needs; where that is not known, the plan and the reason.

    Args:
        plan: what would run.
        processes: number of processes to compare ways for; None: as many as the plan's own degrees make.
        target: the GPU that it would run on.
        as_json: for programs.

    Raises:
        UserError: the file of constants cannot be read.
    """
    sizing: Sizing | None = None
    reason: str | None = None
    try:
        sizing = size_plan(plan, processes=processes, gpu_memory_gib=target.memory_gib)
    except UserError as error:
        reason = str(error)
    forecasts = Forecasts(plan, target.gpu, target.calibration)
    if as_json:
        _print_json(plan, sizing, reason, forecasts)
        return
    print_plan(plan)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_PIPED, highlight=False)
    if sizing is None:
        console.print(f"Its needs are not known: {reason}")
        return
    _print_needs(console, sizing)
    for name, text in forecasts.lines():
        console.print(f"  {name:14s} {text}", soft_wrap=True)
    console.print(_combinations(sizing, plan.steps, forecasts))
    for note in sizing.notes:
        console.print(f"  {note}", soft_wrap=True)


def _print_json(plan: Plan, sizing: Sizing | None, reason: str | None, forecasts: Forecasts) -> None:
    import json

    needs: dict[str, Any] = {"sizing": None, "sizing_reason": reason}
    if sizing is not None:
        ways = forecasts.ordered(sizing.combinations)
        needs["sizing"] = sizing.as_dict() | {
            "combinations": [way.as_dict() | forecasts.as_dict(way) for way in ways]
        }
    print(json.dumps(plan_as_dict(plan) | needs | forecasts.as_dict(), indent=2))


def _print_needs(console: Console, sizing: Sizing) -> None:
    own = sizing.own
    call = "scale in the mean" if own.engine == "autoregressive" else "step"
    parts = ", ".join(
        f"{name} {number(size / GIB)}" for name, size in own.memory.parameter_bytes.items() if size
    )
    work = sizing.tflops
    rows = {
        "weights": f"{number(sum(own.memory.parameter_bytes.values()) / GIB)} GiB a rank ({parts})",
        "peak memory": f"about {number(own.memory.peak_bytes / GIB)} GiB a rank, in {own.memory.peak_stage}"
        + _fits_text(own, sizing.gpu_memory_gib),
        "work": f"{number(work['total'])} TFLOPs an iteration, {number(work['denoise_step'])} a {call}",
        "sent": f"{_mebibytes(own)} MiB by each rank in a step",
    }
    for name, text in rows.items():
        console.print(f"  {name:14s} {text}", soft_wrap=True)


def _combinations(sizing: Sizing, steps: int, forecasts: Forecasts) -> Table:
    processes = "1 process" if sizing.processes == 1 else f"{sizing.processes} processes"
    order = (
        "best guess first"
        if forecasts.gpu is None
        else f"by the seconds that are forecast for {forecasts.gpu}"
    )
    table = Table(title=f"Ways to use {processes}, {order}", title_justify="left")
    headings = ("engine", "degrees", *forecasts.headings, "TFLOPs/rank", "MiB sent/step", "peak GiB", "fits")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("engine", "degrees", "fits") else "right")
    for way in forecasts.ordered(sizing.combinations)[:_MOST_ROWS]:
        fits = "-" if way.memory.fits is None else "yes" if way.memory.fits else "no"
        peak = number(way.memory.peak_bytes / GIB)
        degrees = _degrees(way.parallel, steps)
        own = (number(way.tflops_per_rank), _mebibytes(way), peak, fits)
        table.add_row(way.engine, degrees, *forecasts.cells(way), *own)
    return table


def _degrees(parallel: Parallelism, steps: int) -> str:
    return parallelism_text(asdict(parallel), parallel.world_size, steps)


def _mebibytes(way: ShareOut) -> str:
    return number(way.communication.total_bytes / 2**20)


def _fits_text(way: ShareOut, gpu_memory_gib: float | None) -> str:
    if way.memory.fits is None:
        return ""
    return f"; {'fits' if way.memory.fits else 'does not fit'} into {gpu_memory_gib:g} GiB"
