"""A study's report as data: tables, charts, pictures and sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlenergy.diffusion.results.repeats import Figure, FigureName, SetUp
from mlenergy.diffusion.results.units import IMAGE, Unit
from mlenergy.diffusion.studies.outcome import Cell


@dataclass(frozen=True)
class Gap:
    """A value that is not known, with the reason."""

    reason: str


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval, where that is known, and what makes it doubtful."""

    value: float
    low: float | None = None
    high: float | None = None
    doubts: tuple[str, ...] = ()


Value = str | int | float | bool | Gap | Measured


@dataclass(frozen=True)
class Column:
    """A column: its key in files, with the unit in its name, and its heading for people."""

    key: str
    label: str


@dataclass(frozen=True)
class Table:
    """A table; a row lacks no column."""

    name: str  # of its CSV file, and its key in report.json
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Value]]
    note: str = ""


@dataclass(frozen=True)
class Point:
    """A point of a chart, with the interval of y where it is known."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one kind, with a line through other points, such as those of a fit, or none."""

    label: str
    points: Sequence[Point]
    line: Sequence[tuple[float, float]] = ()
    joined: bool = False  # draw a line from point to point


@dataclass(frozen=True)
class Chart:
    """A chart of y over x, on linear or logarithmic axes."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log: bool = False
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An image file with the line below it; a gap where there is none."""

    file: Path | None
    caption: str
    gap: str | None = None


@dataclass(frozen=True)
class Pictures:
    """Rows of images under headings, such as one column a model and one row a prompt."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Picture]]]
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph or preformatted lines."""

    title: str
    lines: Sequence[str]
    preformatted: bool = False


Part = Table | Chart | Pictures | Text


@dataclass(frozen=True)
class Report:
    """Everything that a study tells."""

    title: str
    summary: Sequence[str] = ()  # sentences at the top
    parts: Sequence[Part] = ()
    data: Mapping[str, object] = field(default_factory=dict)  # further keys of report.json
    files: Mapping[str, Path] = field(default_factory=dict)  # name beside the report -> file to copy
    texts: Mapping[str, str] = field(default_factory=dict)  # name beside the report -> content

    @property
    def tables(self) -> list[Table]:
        """The tables among its parts."""
        return [part for part in self.parts if isinstance(part, Table)]


def figure_columns(unit: Unit) -> tuple[Column, ...]:
    """Columns of seconds, joules and gigabytes of one image or video."""
    return (
        Column(unit.time, f"s/{unit.name}"),
        Column(unit.energy, f"J/{unit.name}"),
        Column("peak_memory_gb", "peak GB"),
    )


FIGURE_COLUMNS = figure_columns(IMAGE)


def figures_of(cell: Cell, unit: Unit = IMAGE) -> dict[str, Value]:
    """Seconds, joules and gigabytes an image or video of a cell, under the keys of `figure_columns`."""
    return {
        unit.time: seconds_of(cell),
        unit.energy: joules_of(cell),
        "peak_memory_gb": memory_of(cell),
    }


def seconds_of(cell: Cell) -> Measured | Gap:
    """Seconds an image or video: mean over iterations and repeats."""
    if cell.set_up is None:
        return Gap(cell.gap or "not measured")
    return _measured(cell.set_up.seconds, cell.set_up, "seconds")


def joules_of(cell: Cell) -> Measured | Gap:
    """Joules of all GPUs an image or video."""
    if cell.set_up is None:
        return Gap(cell.gap or "not measured")
    if cell.set_up.joules is None:
        return Gap(cell.set_up.reasons["joules"])
    return _measured(cell.set_up.joules, cell.set_up, "joules")


def load_of(cell: Cell) -> Value:
    """Seconds that loading took on the slowest rank; of several repeats the largest."""
    if cell.set_up is None:
        return Gap(cell.gap or "not measured")
    known = [one.load_s for one in cell.set_up.starts if one.load_s is not None]
    return max(known) if known else Gap("not in this result")


def memory_of(cell: Cell) -> Measured | Gap:
    """Peak memory of the fullest GPU, in 10⁹ bytes."""
    if cell.set_up is None:
        return Gap(cell.gap or "not measured")
    peak_gb = cell.set_up.peak_memory_gb
    if peak_gb is None:
        return Gap(cell.set_up.reasons["memory"])
    return Measured(peak_gb, doubts=_doubts(cell.set_up, "memory"))


def _measured(figure: Figure, set_up: SetUp, name: FigureName) -> Measured:
    known = figure.half_width is not None
    low, high = (figure.interval.low, figure.interval.high) if known else (None, None)
    return Measured(figure.mean, low, high, _doubts(set_up, name))


def _doubts(set_up: SetUp, name: FigureName) -> tuple[str, ...]:
    return tuple(message for _, message in set_up.doubts(name))
