"""A study's sweeps, one after the other, through the runner of `mlenergy sweep`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.ledger import Entry, Ledger
from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.studies.outcome import Cell, Outcome, StudyRun, cells_of
from mlenergy.diffusion.studies.study import Study, StudyOptions, Sweep
from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.options import BASE_DIR, full_name
from mlenergy.diffusion.sweep.session import Session
from mlenergy.diffusion.sweep.spec import SweepSpec, spec_of
from mlenergy.diffusion.sweep.yaml_file import read_yaml, yaml_value

COMMAND = "study.json"
_DATASET, _WEIGHTS = "workload.dataset", "workload.weights"

# Runs, prints or shows one sweep; returns an exit code.
Act = Callable[[Session], int]


@dataclass(frozen=True)
class StudyFolder:
    """A study with its options and the place of its files."""

    study: Study
    options: StudyOptions
    argv: tuple[str, ...]
    place: Path  # where its files are now
    origin: Path  # where they were when it ran; part of the runs' command lines

    @classmethod
    def of(cls, study: Study, options: StudyOptions, argv: list[str]) -> StudyFolder:
        """The folder that the options name."""
        folder = study.folder_of(options)
        return cls(study, options, tuple(argv), folder, folder)

    @property
    def command(self) -> str:
        """The command that runs it, quoted for a shell."""
        return shlex.join(["mlenergy", "study", "run", self.study.name, *self.argv])

    def save(self) -> None:
        """Write the command into the folder, for later reports.

        Raises:
            UserError: it cannot be written.
        """
        content = {"study": self.study.name, "argv": list(self.argv), "folder": str(self.origin)}
        write_json(self.place / COMMAND, content)

    def walk(self, act: Act | None) -> tuple[Outcome, list[int]]:
        """Go through the sweeps in order; what each has measured decides on the next ones.

        Args:
            act: runs or prints one sweep; None: only read. After a code of a signal, 128 or more, the
                remaining sweeps are only read.

        Returns:
            The cells of all sweeps, and the codes of `act`.

        Raises:
            UserError: a sweep asks for what there is not, or the machine cannot run it.
        """
        outcome, codes = Outcome(self.place), list[int]()
        steps = self.study.sweeps(self.options)
        cells: list[Cell] | None = None
        while True:
            try:
                sweep = next(steps) if cells is None else steps.send(cells)
            except StopIteration:
                return outcome, codes
            assert sweep.name not in outcome.by_sweep, f"two sweeps are called {sweep.name}"
            stopped = any(code >= 128 for code in codes)
            cells = self._step(sweep, None if stopped else act, codes)
            outcome.by_sweep[sweep.name] = cells

    def _step(self, sweep: Sweep, act: Act | None, codes: list[int]) -> list[Cell]:
        spec = self._spec(sweep)
        runs = expand(spec)
        state = self._moved(str(spec.folder), self.origin, self.place)
        ledger = Ledger.load(Path(state) / "state.json")
        if act is not None:
            left = runs
            if self.options.resume:
                cells = self._cells(sweep, spec, ledger)
                numbers = {one.number for cell in cells for one in cell.runs if self.ends_well(one)}
                left = [run for run in runs if run.number not in numbers]
            codes.append(act(Session(spec, left, ledger, self.options.resume, show_results=False)))
        return self._cells(sweep, spec, ledger)

    def ends_well(self, run: StudyRun) -> bool:
        """True for a failed run that is a result of the study, which is not repeated."""
        expected = self.study.is_expected
        return run.state == "failed" and expected is not None and expected(run)

    def _cells(self, sweep: Sweep, spec: SweepSpec, ledger: Ledger) -> list[Cell]:
        here = Ledger(ledger.file, {key: self._entry_here(entry) for key, entry in ledger.entries.items()})
        return cells_of(sweep.name, expand(spec), here, self.place / "results")

    def _entry_here(self, entry: Entry) -> Entry:
        if entry.folder is None or self.origin == self.place:
            return entry
        return replace(entry, folder=self._moved(entry.folder, self.origin, self.place))

    def _spec(self, sweep: Sweep) -> SweepSpec:
        """The sweep with the study's folder, and the options that hold for all of its runs."""
        content = self._moved(dict(sweep.content), self.place, self.origin)
        given = {full_name(name): value for name, value in (content.get("common") or {}).items()}
        common = {BASE_DIR: str(self.origin / "results"), _DATASET: "bundled", **given}
        if (self.options.weights or self.study.weights) == "random":
            common[_WEIGHTS] = "random"
        common |= self._set(sweep, content)
        content |= {"folder": str(self.origin / "sweeps" / sweep.name), "common": common}
        content.setdefault("retries", self.options.retries)
        if self.options.slurm is not None:
            content["slurm"] = read_yaml(self.options.slurm)
        return spec_of(content, f"{self.study.name}-{sweep.name}", f"study {self.study.name}")

    def _set(self, sweep: Sweep, content: Mapping[str, Any]) -> dict[str, Any]:
        """The options of --set.

        Raises:
            UserError: one is not OPTION=VALUE, or the study gives it values of its own.
        """
        found: dict[str, Any] = {}
        for text in self.options.set:
            name, equals, value = text.partition("=")
            if not equals:
                raise UserError(f"--set {text} has no value; write --set {text}=VALUE")
            name = full_name(name)
            if name == BASE_DIR:
                raise UserError("--set base_dir: a study names its folders itself; use --folder")
            if name in _varied(content):
                own = f"the study {self.study.name} gives it values of its own"
                raise UserError(f"--set {name}: {own}; leave it out")
            found[name] = yaml_value(value)
        return found

    def _moved(self, value: Any, old: Path, new: Path) -> Any:
        """A value in which paths below one folder lie below another one."""
        if old == new:
            return value
        if isinstance(value, str) and (value == str(old) or value.startswith(f"{old}/")):
            return str(new) + value[len(str(old)) :]
        if isinstance(value, Mapping):
            return {key: self._moved(one, old, new) for key, one in value.items()}
        if isinstance(value, list):
            return [self._moved(one, old, new) for one in value]
        return value


def _varied(content: Mapping[str, Any]) -> set[str]:
    """Full names of the options in the grids and the list of a sweep."""
    listed = [content.get("grid") or [], content.get("list") or []]
    entries = [one for part in listed for one in (part if isinstance(part, list) else [part])]
    return {full_name(name) for entry in entries for names in entry for name in str(names).split(",")}
