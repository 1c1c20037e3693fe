"""The verb: `mlenergy sweep sweep.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mlenergy.diffusion.config.args import PROCESSES
from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group, parse
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.ledger import Ledger, folder_lock
from mlenergy.diffusion.sweep.conditions import Condition
from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.forecast import Total
from mlenergy.diffusion.sweep.session import Session
from mlenergy.diffusion.sweep.spec import SweepSpec, read_sweep

PROG = "mlenergy sweep"
RETRIES = Range(least=0, most=1000)


@option_group()
@dataclass(frozen=True)
class SweepArgs:
    """Run many configurations, each in processes of its own. docs/sweeps.md describes the file.

    Started again, it resumes: complete results are skipped, failed and interrupted runs start anew.
    """

    file: tyro.conf.Positional[Path]
    """The sweep, a YAML file."""
    executor: Literal["local", "slurm"] = "local"
    """Place where runs are started: on this machine, or as Slurm job arrays."""
    print: bool = False
    """Show exactly what would run or be submitted, and stop."""
    gpu: str | None = None
    """With --print: GPU to forecast the seconds and joules of all runs for, such as H100. Default: none."""
    status: bool = False
    """Show the state of each run, and stop."""
    resume: bool = True
    """Measure complete runs again."""
    filter: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="CONDITION")] = ()
    """Run only the configurations that meet the condition. It may be given several times."""
    retries: Annotated[int | None, RETRIES] = None
    """Times that a failed run is tried again. Default: what the file says."""
    order: Literal["written", "cheapest", "costliest"] | None = None
    """The run that goes first. Default: what the file says."""
    gpus: Annotated[str | None, tyro.conf.arg(metavar="GPU,...")] = None
    """GPUs to use, separated by commas. Default: all visible ones."""
    slots: Annotated[int | None, PROCESSES] = None
    """Processes at a time on a CPU. Default: one run at a time, undisturbed."""


def main(argv: list[str]) -> int:
    """Run, print or look at a sweep.

    Returns:
        0: every run that can work is complete, or submitted. 1: some failed. 128 + signal: stopped.

    Raises:
        UserError: the command line, the sweep file or the machine needs mending, or no run can work.
    """
    asked = parse(SweepArgs, argv, PROG)
    gpus = gpu_list(asked.gpus)
    spec = _with_changes(read_sweep(asked.file), asked)
    session = Session(spec, expand(spec), Ledger.load(spec.folder / "state.json"), asked.resume)
    if asked.status:
        return session.show_state()
    if asked.gpu is not None and not asked.print:
        raise UserError("--gpu is the GPU of a forecast, for --print; --gpus chooses those that runs may use")
    if asked.print:
        total = None if asked.gpu is None else Total.on(asked.gpu)
        code = session.print_commands(asked.executor, gpus, asked.slots, total)
        for line in () if total is None else total.lines():
            print(f"# {line}")
        _check_any(session)
        return code
    with folder_lock(spec.folder, "change folder in the sweep file"):
        code = session.submit() if asked.executor == "slurm" else session.run_here(gpus, asked.slots)
    _check_any(session)
    return code


def gpu_list(written: str | None) -> list[str] | None:
    """The GPUs of --gpus; None where it is not given.

    Raises:
        UserError: it names none.
    """
    gpus = None if written is None else [name.strip() for name in written.split(",") if name.strip()]
    if gpus == []:
        raise UserError(f"--gpus {written} names no GPU; write --gpus 0,1, or leave it out")
    return gpus


def _check_any(session: Session) -> None:
    """Refuse a sweep of which no run can work, which would otherwise end like one that is complete."""
    entries = [session.ledger.entries.get(run.key) for run in session.runs]
    states = [entry.state for entry in entries if entry is not None]
    if not all(state in ("pruned", "filtered") for state in states):
        return
    if "pruned" not in states:
        raise UserError("the filters leave no run; change filter in the sweep file, or --filter")
    reason = next(entry.message for entry in entries if entry is not None and entry.state == "pruned")
    raise UserError(f"none of {len(states)} runs can work; the first one: {reason}")


def _with_changes(spec: SweepSpec, asked: SweepArgs) -> SweepSpec:
    filters: Sequence[Condition] = [Condition.parse(text) for text in asked.filter]
    return replace(
        spec,
        filters=(*spec.filters, *filters),
        retries=spec.retries if asked.retries is None else asked.retries,
        order=asked.order or spec.order,
    )
