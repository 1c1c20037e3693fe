"""The runs of a study with their results, and the configurations that they make up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mlenergy.diffusion.executors.ledger import Entry, Ledger
from mlenergy.diffusion.executors.leftover import as_on_disk
from mlenergy.diffusion.results.find import find_results
from mlenergy.diffusion.results.read import Loaded, load_found, load_result
from mlenergy.diffusion.results.record import ResultRecord
from mlenergy.diffusion.results.repeats import SetUp, pool
from mlenergy.diffusion.sweep.expand import Run
from mlenergy.diffusion.sweep.options import BASE_DIR, full_name

_STATES = {"planned": "not run yet", "submitted": "waits in Slurm's queue", "running": "running"}


@dataclass(frozen=True)
class StudyRun:
    """One run: its options, and its result or the reason why there is none."""

    number: int  # from 1, within its sweep
    label: str
    options: Mapping[str, Any]  # by full name
    repeat: int  # from 1
    state: str  # of the sweep's ledger, or of the result where that is not complete
    record: ResultRecord | None
    gap: str | None  # why there is no record
    folder: Path | None

    @cached_property
    def content(self) -> dict[str, Any]:
        """All of results.json, or of results_interrupted.json; empty where there is neither."""
        for name in ("results.json", "results_interrupted.json"):
            file = (self.folder or Path()) / name
            if self.folder is not None and file.is_file():
                return dict(json.loads(file.read_bytes()))
        return {}


@dataclass(frozen=True)
class Cell:
    """One configuration of a study, with all of its repeats."""

    sweep: str
    label: str
    options: Mapping[str, Any]  # by full name, without the folder
    runs: tuple[StudyRun, ...]

    def option(self, name: str, default: Any = None) -> Any:
        """The value that the study gives to an option of `mlenergy run`; `workload.` may be left out."""
        return self.options.get(full_name(name), default)

    @cached_property
    def set_up(self) -> SetUp | None:
        """The complete repeats pooled; of those on several machines or versions, the newest one's."""
        pooled = pool([run.record for run in self.runs if run.record is not None])
        return max(pooled, key=lambda one: max(start.date or "" for start in one.starts), default=None)

    @property
    def gap(self) -> str | None:
        """The reason why there is no result; None where there is one."""
        return None if self.set_up is not None else self.runs[0].gap

    @property
    def is_open(self) -> bool:
        """True where a run has not ended yet."""
        return any(run.state in _STATES for run in self.runs)


@dataclass
class Outcome:
    """The cells of a study's sweeps, in order."""

    folder: Path
    by_sweep: dict[str, list[Cell]] = field(default_factory=dict)

    def cells(self, sweep: str | None = None) -> list[Cell]:
        """Cells of one sweep, or of all; none where the sweep was not asked for."""
        if sweep is not None:
            return list(self.by_sweep.get(sweep, ()))
        return [cell for cells in self.by_sweep.values() for cell in cells]

    def cell(self, sweep: str | None = None, **options: Any) -> Cell | None:
        """The first cell whose options have these values."""
        found = (c for c in self.cells(sweep) if all(c.option(n) == v for n, v in options.items()))
        return next(found, None)

    @property
    def runs(self) -> list[StudyRun]:
        """All runs."""
        return [run for cell in self.cells() for run in cell.runs]


def cells_of(sweep: str, runs: Sequence[Run], ledger: Ledger, results: Path) -> list[Cell]:
    """The cells of a sweep, as its ledger and the files tell.

    Args:
        sweep: its name.
        runs: what the sweep expands to.
        ledger: the state of its runs.
        results: folder below which the results are.
    """
    by_options: dict[str, list[StudyRun]] = {}
    kept: dict[str, Mapping[str, Any]] = {}
    placed = _Placed(results)
    for run in runs:
        options = {name: value for name, value in run.options.items() if name != BASE_DIR}
        key = json.dumps(options, sort_keys=True, default=str)
        kept[key] = options
        by_options.setdefault(key, []).append(_with_result(run, ledger.entries.get(run.key), placed))
    return [Cell(sweep, _label(own), kept[key], tuple(own)) for key, own in by_options.items()]


class _Placed:
    """Results by command line: on a cluster the ledger does not know the folder that a node's GPU names."""

    def __init__(self, results: Path) -> None:
        self._results = results

    @cached_property
    def _loaded(self) -> list[tuple[list[str], Loaded, Path]]:
        if not self._results.is_dir():
            return []
        found = [(load_found(self._results, one), one) for one in find_results(self._results)]
        return [
            (
                [*map(str, loaded.content["environment"].get("command_line") or ())],
                loaded,
                self._results / one.folder,
            )
            for loaded, one in found
            if loaded.content is not None
        ]

    def find(self, argv: Sequence[str]) -> tuple[ResultRecord, Path] | None:
        """The record and folder of the run with this command line."""
        words = [*argv]
        same = [(loaded.record, at) for line, loaded, at in self._loaded if line[-len(words) :] == words]
        return max(same, key=lambda pair: pair[0].date or "", default=None)


def _with_result(run: Run, entry: Entry | None, placed: _Placed) -> StudyRun:
    entry = as_on_disk(entry or Entry(run.argv, run.label))
    folder = None if entry.folder is None else Path(entry.folder)
    record, state, gap = None, str(entry.state), None
    if state == "complete":
        if folder is not None:
            record = load_result(folder / "results.json").record
        elif (found := placed.find(run.argv)) is not None:
            record, folder = found
        if record is None:
            gap = "complete by its exit code, but its results are not here"
        elif record.state != "complete":
            state, gap, record = record.state, record.reason or record.state, None
    else:
        gap = entry.message or _STATES.get(state, state)
    return StudyRun(run.number, run.label, run.options, run.repeat, state, record, gap, folder)


def _label(runs: Sequence[StudyRun]) -> str:
    return " ".join(word for word in runs[0].label.split() if not word.startswith("repeat="))
