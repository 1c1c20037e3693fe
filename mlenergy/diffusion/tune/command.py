"""The verb: `mlenergy tune`."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console, RenderableType

from mlenergy.diffusion.config.args import BenchmarkArgs, parse_args
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.ledger import folder_lock
from mlenergy.diffusion.executors.local import Stopped
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.report.tune_view import render, render_choice
from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.results.paths import model_slug
from mlenergy.diffusion.tune.axes import axes_of
from mlenergy.diffusion.tune.candidates import choose
from mlenergy.diffusion.tune.log import TuneLog
from mlenergy.diffusion.tune.machine import machine_of, slots_of
from mlenergy.diffusion.tune.options import FIRST_ITERS, Asked, read_command
from mlenergy.diffusion.tune.parser import PROG
from mlenergy.diffusion.tune.pruning import Planner
from mlenergy.diffusion.tune.record import Frame, record
from mlenergy.diffusion.tune.runner import Runner
from mlenergy.diffusion.tune.schedule import Limits, Step
from mlenergy.diffusion.tune.search import search, take_up
from mlenergy.diffusion.tune.starts import Failed, Measured
from mlenergy.diffusion.tune.state import Tried

_PIPED_WIDTH = 160  # where there is no terminal that has a width


def main(argv: list[str]) -> int:
    """Search, and report the front.

    Returns:
        0: there is a front. 128 + signal: stopped; what there was is reported.

    Raises:
        UserError: the command line, the model or the machine needs mending, or every candidate failed.
    """
    begin_s = time.monotonic()
    asked = read_command(argv)
    frame = _frame(asked, argv)
    if asked.dry_run:
        planned = record(frame, [Tried(one) for one in frame.choice.candidates], 0.0, "dry run")
        _print(planned, render_choice(planned), asked.json)
        return 0
    with folder_lock(Path(frame.folder), "use another --folder"):
        return _search(asked, frame, begin_s)


def _frame(asked: Asked, argv: Sequence[str]) -> Frame:
    args = parse_args(asked.words, PROG)
    limits = _limits(asked, args)
    machine = machine_of(args.device, asked.processes, asked.gpu_memory_gib)
    model = resolve_model(args.workload.model_id, args.workload.revision)
    return Frame(
        model_id=model.model_id,
        command=shlex.join(["mlenergy", "tune", *argv]),
        folder=str(asked.folder or Path("run") / "tune" / model_slug(model.model_id)),
        machine=machine,
        limits=limits,
        choice=choose(
            args, axes_of(asked, args, machine.processes), Planner(model, machine, asked.approximate)
        ),
    )


def _limits(asked: Asked, args: BenchmarkArgs) -> Limits:
    first = args.benchmark_iters if "benchmark_iters" in asked.given else FIRST_ITERS
    if first < 2:
        raise UserError(f"--benchmark_iters {first}: one iteration has no interval; use 2 or more")
    return Limits(asked.budget_s, asked.rounds, asked.tolerance, first)


def _search(asked: Asked, frame: Frame, begin_s: float) -> int:
    folder, limits = Path(frame.folder), frame.limits
    log = TuneLog(folder / "tune.log", limits)
    # Images are kept where they are asked for: their files take longer than a short start's windows.
    save_images = "save_images" in asked.given and frame.choice.candidates[0].args.save_images
    runner = Runner(folder, slots_of(frame.machine), save_images, log.write)
    tried = take_up(frame.choice.candidates, limits, runner.earlier, asked.retry_failed)
    log.begin(frame.choice, sum(1 for one in tried if one.starts))

    def elapsed_s() -> float:
        return time.monotonic() - begin_s

    def save(ended: str) -> dict[str, Any]:
        content = record(frame, tried, elapsed_s(), ended)
        write_json(folder / "tune.json", content)
        return content

    def after(step: Step, outcome: Measured | Failed) -> None:
        log.after(step, outcome)
        save("running")

    code = 0
    try:
        with _signals_stop():
            ended: str = search(tried, limits, runner.start, elapsed_s, after, log.before)
    except Stopped as stopped:
        ended, code = f"stopped by {stopped}; the same command goes on", 128 + stopped.number
    found = save(ended)
    if not code and not any(one.starts for one in tried):
        raise _nothing(found)
    _print(found, render(found), asked.json)
    return code


def _nothing(found: Mapping[str, Any]) -> UserError:
    failed = [entry for entry in found["candidates"] if entry["failure"] is not None]
    if not failed:
        return UserError("the budget ended before anything was measured; use a longer --budget_s")
    return UserError(
        f"none of {len(failed)} candidates could be measured; the first one: {failed[0]['failure']} "
        f"({found['folder']}/logs has each one's output; mend it and add --retry_failed)"
    )


def _print(found: Mapping[str, Any], report: RenderableType, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False, markup=False)
    console.print(report, crop=False)


@contextmanager
def _signals_stop() -> Iterator[None]:
    """Between runs a signal raises Stopped; while one runs, the executor sees to it."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Stopped(signum)

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
