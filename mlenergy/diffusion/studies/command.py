"""The verb: `mlenergy study list`, `run NAME`, `report NAME`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from mlenergy.diffusion.config.option import nearest
from mlenergy.diffusion.config.parser import option_group, parse, read
from mlenergy.diffusion.environment.device import detect_device
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.ledger import folder_lock
from mlenergy.diffusion.studies.content import Column, Table
from mlenergy.diffusion.studies.files import GAPS, REPORT, write_report
from mlenergy.diffusion.studies.outcome import Outcome
from mlenergy.diffusion.studies.registry import STUDIES, study_named
from mlenergy.diffusion.studies.runner import COMMAND, Act, StudyFolder
from mlenergy.diffusion.studies.study import StudyOptions
from mlenergy.diffusion.studies.text import print_report
from mlenergy.diffusion.sweep.command import gpu_list
from mlenergy.diffusion.sweep.forecast import Total
from mlenergy.diffusion.sweep.session import Session
from mlenergy.diffusion.version import __version__

PROG = "mlenergy study"
_PIPED_WIDTH = 160  # without a terminal, which would have one


@option_group()
@dataclass(frozen=True)
class StudyArgs:
    """Studies: named sweeps that come with the program, each with a report of its own."""

    action: tyro.conf.Positional[Literal["list", "run", "report"]]
    """list, run or report."""


@option_group()
@dataclass(frozen=True)
class ListArgs:
    """List the studies."""

    json: bool = False
    """Print JSON instead of a table."""


@option_group()
@dataclass(frozen=True)
class ReportArgs:
    """Report again on a study that was run, from what is in its folder. Nothing is started."""

    folder: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="DIR")] = ()
    """Folder of the study. Default: run/studies/NAME."""
    json: bool = False
    """Print report.json instead of the tables."""


def main(argv: list[str]) -> int:
    """List, run or report on studies.

    Returns:
        0: every run that can work is complete, or submitted. 1: some failed. 128 + signal: stopped.

    Raises:
        UserError: the command line, a study's options or the machine need mending, or no run can work.
    """
    actions: Mapping[str, Callable[[list[str]], int]] = {"list": _list, "run": _run, "report": _report}
    match argv:
        case [] | ["-h" | "--help", *_]:
            print(_usage(), end="")
            return 0 if argv else 2
        case [action, *rest] if action in actions:
            return actions[action](rest)
        case [word, *_]:
            meant = nearest(word, actions)
            hint = f"did you mean {meant}?" if meant else f"use one of {', '.join(actions)};"
            raise UserError(f"there is no {PROG} {word}; {hint} See {PROG} --help")
    raise AssertionError("every command line is one of these")


def _usage() -> str:
    return (
        f"usage: {PROG} list | run NAME [OPTIONS] | report NAME [DIR]\n\n"
        f"{_studies()}\n"
        f"  {PROG} run NAME --help      the options of a study\n"
        f"  {PROG} run NAME --print     exactly what would run\n"
        "The same command again continues where it stopped. docs/studies.md tells what each shows.\n"
    )


def _studies() -> str:
    width = max(map(len, STUDIES))
    return "".join(f"  {study.name.ljust(width)}  {study.summary}\n" for study in STUDIES.values())


def _list(argv: list[str]) -> int:
    if parse(ListArgs, argv, f"{PROG} list").json:
        content = [{"name": study.name, "summary": study.summary} for study in STUDIES.values()]
        print(json.dumps(content, indent=2))
    else:
        print(_studies(), end="")
    return 0


def _run(argv: list[str]) -> int:
    study, words = _named(argv, "run")
    options = parse(study.options, words, f"{PROG} run {study.name}")
    folder = StudyFolder.of(study, options, words)
    total = _total(options) if options.print else None
    act = _act(folder, total)
    if options.gpu is not None and not options.print:
        raise UserError("--gpu is the GPU of a forecast, for --print; --gpus chooses those that runs may use")
    if options.print or options.status:
        outcome, _ = folder.walk(act)
        if options.print and study.adaptive and any(cell.is_open for cell in outcome.cells()):
            print("# further runs depend on the results of these")
        if total is not None:
            for line in [f"no forecast: {total}"] if isinstance(total, str) else total.lines():
                print(f"# {line}")
        return 0
    with folder_lock(folder.place, "use another --folder"):
        folder.save()
        if study.before is not None:
            study.before(options, folder.place)
        outcome, codes = folder.walk(act)
        stopped = max((code for code in codes if code >= 128), default=0)
        _check_any(outcome)
        if study.after is not None and not stopped:
            study.after(options, outcome)
        _tell(folder, outcome)
    failed = any(run.state == "failed" and not folder.ends_well(run) for run in outcome.runs)
    return stopped or int(failed or any(codes))


def _total(options: StudyOptions) -> Total | str:
    """The forecast to which runs are added, or the reason why this machine has none.

    Raises:
        UserError: the GPU that is named has no data sheet.
    """
    if options.gpu is not None:
        return Total.on(options.gpu)
    try:
        device, name = detect_device()
        return Total.on(name) if device == "cuda" else "there is no GPU here; name one, such as --gpu H100"
    except UserError as error:
        return str(error)  # nobody has asked for a forecast


def _act(folder: StudyFolder, total: Total | str | None) -> Act:
    """What is done with each sweep."""
    options = folder.options
    gpus = gpu_list(options.gpus)

    def act(session: Session) -> int:
        if options.status:
            return session.show_state()
        if options.print:
            sum_of = total if isinstance(total, Total) else None
            return session.print_commands(options.executor, gpus, options.slots, sum_of)
        if options.executor == "slurm":
            return session.submit()
        code = session.run_here(gpus, options.slots)
        return code if code >= 128 else 0  # failed runs are counted in the outcome

    return act


def _report(argv: list[str]) -> int:
    study, words = _named(argv, "report")
    asked = parse(ReportArgs, words, f"{PROG} report {study.name}")
    if len(asked.folder) > 1:
        raise UserError(f"a report is on one study, not {len(asked.folder)}; name one folder")
    place = next(iter(asked.folder), Path("run") / "studies" / study.name)
    folder = _opened(study.name, place)
    outcome, _ = folder.walk(None)
    _check_any(outcome)
    _tell(folder, outcome, as_json=asked.json)
    return 0


def _opened(name: str, place: Path) -> StudyFolder:
    """The study that ran in a folder, with its options as they were.

    Raises:
        UserError: there is none, or another one.
    """
    try:
        content = json.loads((place / COMMAND).read_bytes())
        found, argv, origin = content["study"], list(content["argv"]), Path(content["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"there is no study in {place}; name its folder, or run it: {PROG} run {name}"
        ) from None
    if found != name:
        raise UserError(f"{place} holds the study {found}; use {PROG} report {found} {place}")
    study = study_named(name)
    options = read(study.options, argv, f"{PROG} run {name}")
    return StudyFolder(study, replace(options, folder=place), tuple(argv), place, origin)


def _named(argv: list[str], action: str) -> tuple[Any, list[str]]:
    match argv:
        case [] | ["-h" | "--help", *_]:
            if argv:
                print(_usage(), end="")
                raise SystemExit(0)
            raise UserError(f"name a study: {PROG} {action} {next(iter(STUDIES))}; see {PROG} list")
        case [name, *words] if not name.startswith("-"):
            return study_named(name), words
        case [word, *_]:
            raise UserError(f"the study's name comes before {word}: {PROG} {action} NAME {word}")
    raise AssertionError("every command line is one of these")


def _check_any(outcome: Outcome) -> None:
    """Refuse a study of which no run can work."""
    runs = outcome.runs
    if runs and all(run.state == "pruned" for run in runs):
        raise UserError(f"none of {len(runs)} runs can work; the first one: {runs[0].gap}")


def _tell(folder: StudyFolder, outcome: Outcome, as_json: bool = False) -> None:
    """Write the report, and print it."""
    report = folder.study.report(folder.options, outcome)
    report = replace(report, parts=[*report.parts, *_gaps(outcome)])
    head = {
        "study": folder.study.name,
        "command": folder.command,
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "runs": len(outcome.runs),
        "complete": sum(1 for run in outcome.runs if run.record is not None),
    }
    page = write_report(report, folder.place, head)
    if as_json:
        print((folder.place / REPORT).read_text("ascii"), end="")
        return
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False, markup=False)
    print_report(report, console)
    print(f"report: {page}")


def _gaps(outcome: Outcome) -> list[Table]:
    """A table of the runs without a result, unless there is none."""
    rows = [
        {"run": run.label, "state": run.state, "reason": run.gap or "not known"}
        for run in outcome.runs
        if run.record is None
    ]
    columns = (Column("run", "run"), Column("state", "state"), Column("reason", "reason"))
    return [Table(GAPS, "Runs without a result", columns, rows)] if rows else []
