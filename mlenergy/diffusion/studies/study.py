"""A study as data: its options, the sweeps that they ask for, and the report on their results."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mlenergy.diffusion.config.args import PROCESSES
from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.models.spec import WeightsKind
from mlenergy.diffusion.studies.content import Report
from mlenergy.diffusion.studies.outcome import Cell, Outcome, StudyRun

_RETRIES = Range(least=0, most=1000)


@option_group("running")
@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Options of every study: where its files are, and how its runs are started."""

    folder: Path | None = None
    """Folder of the results and the report. Default: run/studies/NAME."""
    quick: bool = False
    """Run a small part of the study, to see whether it works here."""
    weights: WeightsKind | None = None
    """random: seeded random values in each model's published architecture, without a download. Default:
    pretrained, but random in mlenergy-v3."""
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="OPTION=VALUE")] = ()
    """Option of mlenergy run for all runs of the study, such as ulysses_degree=2 or benchmark_iters=8. It may
    be given several times."""
    executor: Literal["local", "slurm"] = "local"
    """Place where runs are started: on this machine, or as Slurm job arrays."""
    slurm: Path | None = None
    """YAML file with the keys that a sweep file has under slurm. Default: none."""
    print: bool = False
    """Show exactly what would run or be submitted, and stop."""
    gpu: str | None = None
    """With --print: GPU to forecast the seconds and joules of all runs for, such as H100. Default: the one
    that is here."""
    status: bool = False
    """Show the state of each run, and stop."""
    resume: bool = True
    """Measure complete runs again."""
    retries: Annotated[int, _RETRIES] = 1
    """Times that a failed run is tried again."""
    gpus: Annotated[str | None, tyro.conf.arg(metavar="GPU,...")] = None
    """GPUs to use, separated by commas. Default: all visible ones."""
    slots: Annotated[int | None, PROCESSES] = None
    """Processes at a time on a CPU. Default: one run at a time, undisturbed."""


@dataclass(frozen=True)
class Sweep:
    """Runs of a study: a name, unique in the study, and the content of a sweep file."""

    name: str
    content: Mapping[str, Any]


# Yields sweeps; each `yield` returns the cells of that sweep.
Sweeps = Generator[Sweep, list[Cell], None]


@dataclass(frozen=True)
class Study:
    """A named study; its summary is the docstring of its options."""

    name: str
    options: type[StudyOptions]
    sweeps: Callable[[Any], Sweeps]
    report: Callable[[Any, Outcome], Report]
    adaptive: bool = False  # later sweeps depend on the results of earlier ones
    before: Callable[[Any, Path], None] | None = None  # writes files that the runs read; gets the folder
    after: Callable[[Any, Outcome], None] | None = None  # works on the results, before the report
    is_expected: Callable[[StudyRun], bool] | None = None  # a failed run that is a result, as out of memory
    weights: WeightsKind = "pretrained"  # where --weights is not given

    @property
    def summary(self) -> str:
        """The first line of the options' docstring."""
        return (self.options.__doc__ or "").strip().partition("\n")[0]

    def folder_of(self, options: StudyOptions) -> Path:
        """Folder of the study's files."""
        return options.folder or Path("run") / "studies" / self.name
