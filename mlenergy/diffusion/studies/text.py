"""A study's report as text, for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.table import Table as RichTable
from rich.text import Text as RichText

from mlenergy.diffusion.report.lines import labelled, number, shown, title
from mlenergy.diffusion.studies.content import (
    Chart,
    Gap,
    Measured,
    Part,
    Pictures,
    Report,
    Table,
    Text,
    Value,
)


class Notes:
    """Numbered notes: the reasons of gaps and doubts, each once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, *reasons: str) -> str:
        """Text to put behind a value."""
        numbers = sorted({self._numbers.setdefault(one, len(self._numbers) + 1) for one in reasons})
        return f" [{','.join(map(str, numbers))}]" if numbers else ""

    def rows(self) -> list[tuple[str, str]]:
        """The notes: number and reason."""
        return [(f"[{n}]", reason) for reason, n in self._numbers.items()]


def value_text(value: Value, notes: Notes) -> str:
    """A value as people read it, with the number of its note."""
    if isinstance(value, Gap):
        return f"–{notes.mark(value.reason)}"
    if isinstance(value, Measured):
        half = None if value.high is None else value.high - value.value
        interval = "" if half is None else f" ± {number(half)}"
        return f"{number(value.value)}{interval}{notes.mark(*value.doubts)}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_report(report: Report, console: Console) -> None:
    """Print title, summary, tables and texts; charts and pictures are on the page alone."""
    notes = Notes()
    console.print(title(report.title), soft_wrap=True)
    for sentence in report.summary:
        console.print(RichText(f"  {shown(sentence)}"), soft_wrap=True)
    for part in report.parts:
        for one in _lines(part, notes):
            console.print(one, soft_wrap=not isinstance(one, RichTable))
    for line in labelled(notes.rows(), "yellow", width=6):
        console.print(line, soft_wrap=True)


def _lines(part: Part, notes: Notes) -> Iterator[RenderableType]:
    if isinstance(part, Chart | Pictures):
        return
    yield RichText("")
    yield title(part.title)
    if isinstance(part, Text):
        for line in part.lines:
            yield RichText(f"  {shown(line)}")
        return
    yield _table(part, notes)
    if part.note:
        yield RichText(f"  {shown(part.note)}", style="dim")


def _table(table: Table, notes: Notes) -> RichTable:
    drawn = RichTable(box=None, pad_edge=True, header_style="bold")
    for column in table.columns:
        drawn.add_column(column.label, justify="right" if is_numeric(table, column.key) else "left")
    for row in table.rows:
        drawn.add_row(*(RichText(shown(value_text(row[c.key], notes))) for c in table.columns))
    return drawn


def is_numeric(table: Table, key: str) -> bool:
    """True where a column holds numbers, so that they stand one below the other."""
    values = [row[key] for row in table.rows if not isinstance(row[key], Gap)]
    return all(isinstance(v, (int, float, Measured)) and not isinstance(v, bool) for v in values)
