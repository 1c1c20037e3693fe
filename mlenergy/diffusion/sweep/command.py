"""The verb: `mlenergy sweep sweep.yaml`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.ledger import Ledger, folder_lock
from mlenergy.diffusion.sweep.conditions import Condition
from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.session import Session
from mlenergy.diffusion.sweep.spec import ORDERS, SweepSpec, read_sweep

_DONE = "complete results are skipped, failed runs are tried again, interrupted ones start anew"


def main(argv: list[str]) -> int:
    """Run, print or look at a sweep.

    Returns:
        0: every run that can work is complete, or submitted. 1: some failed. 128 + signal: stopped.

    Raises:
        UserError: the command line, the sweep file or the machine needs mending.
    """
    asked = _parser().parse_args(argv)
    spec = _with_changes(read_sweep(asked.file), asked)
    session = Session(spec, expand(spec), Ledger.load(spec.folder / "state.json"), asked.resume)
    if asked.status:
        return session.show_state()
    if asked.print:
        return session.print_commands(asked.executor, asked.gpus, asked.slots)
    with folder_lock(spec.folder, "change folder in the sweep file"):
        if asked.executor == "slurm":
            return session.submit()
        return session.run_here(asked.gpus, asked.slots)


class _Parser(argparse.ArgumentParser):
    """Complains as every other verb does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see mlenergy sweep --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mlenergy sweep",
        description="Run many configurations, each in whole new processes. Started again, it goes on: "
        f"{_DONE}. docs/sweeps.md describes the file.",
    )
    parser.add_argument("file", type=Path, help="the sweep, a YAML file")
    parser.add_argument(
        "--executor", choices=("local", "slurm"), default="local", help="this machine, or job arrays"
    )
    parser.add_argument(
        "--print", action="store_true", help="show exactly what would run or be submitted, and stop"
    )
    parser.add_argument("--status", action="store_true", help="show what has become of each run, and stop")
    resume = argparse.BooleanOptionalAction
    parser.add_argument(
        "--resume", action=resume, default=True, help="--no-resume measures complete runs again"
    )
    parser.add_argument(
        "--filter", action="append", default=[], metavar="CONDITION", help="run only what fits it"
    )
    parser.add_argument("--retries", type=_count, help="times that a failed run is tried again")
    parser.add_argument("--order", choices=ORDERS, help="which run goes first")
    parser.add_argument(
        "--gpus", type=_names, metavar="GPU,…", help="GPUs to use; default: all that are visible"
    )
    parser.add_argument(
        "--slots", type=_count, help="on a CPU: processes at a time; default: one run at a time, undisturbed"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _with_changes(spec: SweepSpec, asked: argparse.Namespace) -> SweepSpec:
    filters: Sequence[Condition] = [Condition.parse(text) for text in asked.filter]
    return replace(
        spec,
        filters=(*spec.filters, *filters),
        retries=spec.retries if asked.retries is None else asked.retries,
        order=asked.order or spec.order,
    )
