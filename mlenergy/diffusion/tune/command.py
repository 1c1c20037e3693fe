"""The verb `mlenergy tune`."""

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

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.ledger import LogFile, folder_lock
from mlenergy.diffusion.executors.local import Stopped
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.report.lines import energy, number
from mlenergy.diffusion.report.tune_view import render, render_space
from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.results.paths import model_slug
from mlenergy.diffusion.tune.machine import machine_of, slots_of
from mlenergy.diffusion.tune.options import FIRST_ITERS, PROG, TuneArgs, read_command
from mlenergy.diffusion.tune.record import SearchSetup, record
from mlenergy.diffusion.tune.runner import Runner
from mlenergy.diffusion.tune.search import Limits, Step, earlier_trials, search
from mlenergy.diffusion.tune.space import Planner, SearchSpace, axes_of, search_space
from mlenergy.diffusion.tune.trials import Failed, Measured, Trial

_PIPED_WIDTH = 160  # without a terminal, which would have one


def main(argv: list[str]) -> int:
    """Search, and report the Pareto front.

    Returns:
        0: something was measured. 128 + signal: stopped; the report shows what was measured until then.

    Raises:
        UserError: the command line, the model or the machine is wrong, or every candidate failed.
    """
    begin_s = time.monotonic()
    asked = read_command(argv)
    setup = _setup(asked, argv)
    if asked.dry_run:
        planned = record(setup, [Trial(one) for one in setup.space.candidates], 0.0, "dry run")
        _print(planned, render_space(planned), asked.json)
        return 0
    with folder_lock(Path(setup.folder), "use another --folder"):
        return _search(asked, setup, begin_s)


def _setup(asked: TuneArgs, argv: Sequence[str]) -> SearchSetup:
    args = parse_args(asked.words, PROG)
    first_iters = args.benchmark_iters if "benchmark_iters" in asked.given else FIRST_ITERS
    if first_iters < 2:
        raise UserError(f"--benchmark_iters {first_iters}: one iteration has no interval; use 2 or more")
    machine = machine_of(args.device, asked.processes, asked.gpu_memory_gib)
    model = resolve_model(args.workload.model_id, args.workload.revision)
    return SearchSetup(
        model_id=model.model_id,
        command=shlex.join(["mlenergy", "tune", *argv]),
        folder=str(asked.folder or Path("run") / "tune" / model_slug(model.model_id)),
        machine=machine,
        limits=Limits(asked.budget_s, asked.rounds, asked.tolerance, first_iters),
        space=search_space(
            args, axes_of(asked, args, machine.processes), Planner(model, machine, asked.approximate)
        ),
    )


def _search(asked: TuneArgs, setup: SearchSetup, begin_s: float) -> int:
    folder, limits = Path(setup.folder), setup.limits
    log = _TuneLog(folder / "tune.log", limits)
    # Images only where they are asked for: writing them takes longer than a short start's windows.
    save_images = "save_images" in asked.given and setup.space.candidates[0].args.save_images
    runner = Runner(folder, slots_of(setup.machine), save_images, log.write)
    trials = earlier_trials(setup.space.candidates, limits, runner.earlier, asked.retry_failed)
    log.begin(setup.space, sum(1 for trial in trials if trial.starts))

    def elapsed_s() -> float:
        return time.monotonic() - begin_s

    def save(ended: str) -> dict[str, Any]:
        content = record(setup, trials, elapsed_s(), ended)
        write_json(folder / "tune.json", content)
        return content

    def after(step: Step, outcome: Measured | Failed) -> None:
        log.after(step, outcome)
        save("running")

    code = 0
    try:
        with _signals_stop():
            ended: str = search(trials, limits, runner.start, elapsed_s, after, log.before)
    except Stopped as stopped:
        ended, code = f"stopped by {stopped}; the same command continues", 128 + stopped.number
    found = save(ended)
    if not code and not any(trial.starts for trial in trials):
        raise _nothing_measured(found)
    _print(found, render(found), asked.json)
    return code


class _TuneLog(LogFile):
    """Progress lines: in a file, and on the error stream, so that the report can be piped."""

    def __init__(self, file: Path, limits: Limits) -> None:
        super().__init__(file)
        self._limits = limits

    def begin(self, space: SearchSpace, known: int) -> None:
        """The number of candidates, and in the file what cannot work."""
        for one in space.pruned:
            self.write(f"cannot work: {one.label}: {one.reason}")
        if space.guess_reason is not None:
            self._print(f"the plan has no guess of times and memory: {space.guess_reason}")
        if space.forecast_reason is not None:
            self._print(f"no forecast orders the candidates: {space.forecast_reason}")
        self._print(
            f"{len(space.candidates)} candidates, {known} of them measured before; "
            f"{len(space.pruned)} combinations cannot work"
        )

    def before(self, step: Step) -> None:
        """The start that is about to be made."""
        iterations = self._limits.iterations(step.start)
        expected = f", about {number(step.expected_s)} s" if step.expected_s else ""
        candidate = step.trial.candidate
        self._print(
            f"#{candidate.number} start {step.start}, {iterations} iterations{expected}: {candidate.label}"
        )

    def after(self, step: Step, outcome: Measured | Failed) -> None:
        """The figures of a start, or the reason of its failure."""
        name = f"#{step.trial.candidate.number}"
        took = "" if outcome.wall_s is None else f", took {number(outcome.wall_s)} s"
        if isinstance(outcome, Failed):
            self._print(f"{name} failed{took}: {outcome.message}")
            return
        each = step.trial.candidate.plan.spec.family.output
        joules = "joules not known" if outcome.joules is None else f"{energy(outcome.joules.mean)} per {each}"
        self._print(f"{name} {number(outcome.seconds.mean)} s per {each}, {joules}{took}")

    def _print(self, line: str) -> None:
        self.write(line)
        print(line, file=sys.stderr, flush=True)


def _nothing_measured(found: Mapping[str, Any]) -> UserError:
    failed = [entry for entry in found["candidates"] if entry["failure"] is not None]
    if not failed:
        return UserError("the budget ended before anything was measured; use a longer --budget_s")
    return UserError(
        f"none of {len(failed)} candidates could be measured; the first one: {failed[0]['failure']} "
        f"({found['folder']}/logs has each one's output; fix it and add --retry_failed)"
    )


def _print(found: Mapping[str, Any], report: RenderableType, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False, markup=False)
    console.print(report, crop=False)


@contextmanager
def _signals_stop() -> Iterator[None]:
    """Raise Stopped for a signal between runs; during one the executor does."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Stopped(signum)

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
