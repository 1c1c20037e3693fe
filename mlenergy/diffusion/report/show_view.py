"""A table of set-ups: seconds, joules, gigabytes and outputs a second, with what makes a number doubtful.

Images and videos stand in tables of their own.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlenergy.diffusion.report.lines import labelled, number, shown, title
from mlenergy.diffusion.report.set_ups import (
    FIGURES,
    FIGURES_OF,
    common_text,
    difference_text,
    differences,
    label,
    text_of,
    value_of,
)
from mlenergy.diffusion.results.record import ResultRecord
from mlenergy.diffusion.results.repeats import Figure, FigureName, SetUp
from mlenergy.diffusion.results.units import IMAGE, UNITS, VIDEO, Unit

UNKNOWN = "–"
_SHOWN_OTHERS = 5
_SHOWN_DIFFERENCES = 12
Headings = tuple[tuple[str, FigureName], ...]


def headings(unit: Unit) -> Headings:
    """Of the columns of `figure_cells`, each with the figure whose warnings put it in doubt."""
    each: Headings = ((f"s/{unit.name}", "seconds"), (f"J/{unit.name}", "joules"), ("GB", "memory"))
    rate: Headings = ((f"{unit.count}/s", "seconds"),)
    of_video: Headings = (("frames/s", "seconds"), ("s/video second", "seconds"), ("J/frame", "joules"))
    return (*each, *rate, *(of_video if unit == VIDEO else ()))


@dataclass(frozen=True)
class Shown:
    """Content of a table, whatever its form."""

    set_ups: Sequence[SetUp]
    others: Sequence[ResultRecord] = ()  # what is no complete result
    columns: Sequence[str] | None = None  # None: the figures, and what the set-ups differ in
    hidden: int = 0  # set-ups beyond a limit

    @property
    def differing(self) -> list[str]:
        """Columns that tell the set-ups apart."""
        return list(self.columns) if self.columns is not None else differences(self.set_ups)

    @property
    def units(self) -> list[Unit]:
        """Units of the set-ups: images first."""
        return [unit for unit in UNITS if any(one.unit == unit for one in self.set_ups)] or [IMAGE]

    def parts(self) -> list[Shown]:
        """A table for each unit, in the same order of rows; what is no result stands below the last."""
        parts = [
            replace(self, set_ups=[one for one in self.set_ups if one.unit == unit], others=(), hidden=0)
            for unit in self.units
        ]
        return [*parts[:-1], replace(parts[-1], others=self.others, hidden=self.hidden)]


class Footnotes:
    """Numbers for warnings, in the order in which they are first used; one for each code."""

    def __init__(self) -> None:
        self._messages: dict[str, list[str]] = {}

    def mark(self, doubts: Sequence[tuple[str, str]]) -> str:
        """Text to put behind a number: nothing where it is not in doubt."""
        for code, message in doubts:
            known = self._messages.setdefault(code, [])
            if message not in known:
                known.append(message)
        codes = list(self._messages)
        numbers = sorted({codes.index(code) + 1 for code, _ in doubts})
        return f" [{','.join(map(str, numbers))}]" if numbers else ""

    def rows(self) -> list[tuple[str, str]]:
        """The notes: number, and code with its first message."""
        return [
            (f"[{n}]", f"{code}: {messages[0]}{_and_more(len(messages) - 1)}")
            for n, (code, messages) in enumerate(self._messages.items(), 1)
        ]


def print_table(table: Shown, console: Console) -> None:
    """For a terminal or a pipe; only the table's own lines are broken to fit."""
    for number_, part in enumerate(table.parts()):
        if number_:
            console.print()
        _print_part(part, console)


def _print_part(table: Shown, console: Console) -> None:
    notes = Footnotes()
    body = _figures_table(table, notes) if table.columns is None else _columns_table(table, notes)
    console.print(title(_heading(table)), soft_wrap=True)
    console.print(body)
    for line in labelled(notes.rows(), "yellow"):
        console.print(line, soft_wrap=True)
    for line in labelled([*_notes(table), *other_rows(table.others)]):
        console.print(line, soft_wrap=True)


def markdown(table: Shown) -> str:
    """A table of Markdown for each unit, with its notes below."""
    return "\n".join(map(_markdown_part, table.parts()))


def _markdown_part(table: Shown) -> str:
    notes = Footnotes()
    if table.columns is None:
        names = [*(heading for heading, _ in headings(table.units[0])), "starts", *table.differing]
        rows = [
            [*figure_cells(one, notes), str(len(one.starts))]
            + [text_of(value_of(one, name)) for name in table.differing]
            for one in table.set_ups
        ]
    else:
        names = list(table.columns)
        rows = [[_cell(one, name, notes) for name in table.columns] for one in table.set_ups]
    lines = [names, ["---"] * len(names), *rows]
    text = "\n".join(f"| {' | '.join(map(markdown_text, line))} |" for line in lines)
    below = [f"{name} {value}" for name, value in (*notes.rows(), *_notes(table), *other_rows(table.others))]
    return text + "\n" + "".join(f"\n{markdown_text(line.strip())}  " for line in below) + "\n" * bool(below)


def csv_text(table: Shown) -> str:
    """Comma-separated, numbers in full; what is not known is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    rows = _plain_rows(table)
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer.writerow(names)
    writer.writerows([_csv_value(row.get(name)) for name in names] for row in rows)
    return out.getvalue()


def json_text(table: Shown) -> str:
    """JSON: the set-ups with their result folders, and what is no complete result."""
    content = {
        "set_ups": [
            {
                "unit": one.unit.name,
                **row,
                "warnings": [{"code": code, "message": message} for code, message in one.warnings],
                "reasons": one.reasons,
                "results": [start.path for start in one.starts],
            }
            for row, one in zip(_plain_rows(table), table.set_ups, strict=True)
        ],
        "not_shown": [{"state": o.state, "path": o.path, "reason": o.reason} for o in table.others],
        "set_ups_beyond_the_limit": table.hidden,
    }
    return json.dumps(content, indent=2, ensure_ascii=True) + "\n"


def with_interval(figure: Figure | None) -> str:
    """Mean and half its 95 % interval, with as many decimals as that has two digits."""
    if figure is None:
        return UNKNOWN
    half = figure.half_width
    return f"{number(figure.mean)} ± {UNKNOWN if half is None else number(float(f'{half:.2g}'))}"


def _figures_table(table: Shown, notes: Footnotes) -> Table:
    body = Table(box=None, pad_edge=False, header_style="bold")
    for heading, _ in headings(table.units[0]):
        body.add_column(heading, justify="right", no_wrap=True)
    body.add_column("starts", justify="right", no_wrap=True)
    differing = table.differing
    if differing:
        body.add_column("set-up", overflow="fold")
    for one in table.set_ups:
        cells = [Text(cell) for cell in (*figure_cells(one, notes), str(len(one.starts)))]
        body.add_row(*cells, *([Text(shown(_set_up_text(one, differing)))] if differing else []))
    return body


def _columns_table(table: Shown, notes: Footnotes) -> Table:
    body = Table(box=None, pad_edge=False, header_style="bold")
    for name in table.columns or ():
        body.add_column(label(name), overflow="fold")
    for one in table.set_ups:
        body.add_row(*(Text(shown(_cell(one, name, notes))) for name in table.columns or ()))
    return body


def figure_cells(one: SetUp, notes: Footnotes) -> list[str]:
    """Seconds, joules, gigabytes and outputs a second, each with the notes that put it in doubt."""
    texts = [
        with_interval(one.seconds),
        with_interval(one.joules),
        _known(one.peak_memory_gb),
        number(one.outputs_per_s),
    ]
    if one.unit == VIDEO:
        texts += [
            _known(value_of(one, name)) for name in ("frames_per_s", "real_time_factor", "joules_per_frame")
        ]
    return [
        text if text == UNKNOWN else text + notes.mark(one.doubts(figure))
        for text, (_, figure) in zip(texts, headings(one.unit), strict=True)
    ]


def _known(value: float | None) -> str:
    return UNKNOWN if value is None else number(value)


def _set_up_text(one: SetUp, differing: Sequence[str]) -> str:
    more = len(differing) - _SHOWN_DIFFERENCES
    text = difference_text(one, differing[:_SHOWN_DIFFERENCES])
    return text + (f" and {more} more (--json)" if more > 0 else "")


_DOUBTED_BY: Mapping[str, FigureName] = {  # first word of a figure's name
    "seconds": "seconds",
    "joules": "joules",
    "peak": "memory",
    "images": "seconds",
    "videos": "seconds",
    "frames": "seconds",
    "real": "seconds",
}


def _cell(one: SetUp, name: str, notes: Footnotes) -> str:
    value = value_of(one, name)
    if value is None:
        return UNKNOWN
    text = number(value) if isinstance(value, float) else text_of(value)
    figure = _DOUBTED_BY.get(name.partition("_")[0]) if name in FIGURES else None
    return text + (notes.mark(one.doubts(figure)) if figure is not None else "")


def _plain_rows(table: Shown) -> list[dict[str, Any]]:
    """Values by name; of a table without own columns those of each set-up's own unit."""
    more = [*table.differing, "warning_codes"]
    return [
        {name: value_of(one, name) for name in table.columns or (*FIGURES_OF[one.unit], *more)}
        for one in table.set_ups
    ]


def _heading(table: Shown) -> str:
    results = sum(len(one.starts) for one in table.set_ups)
    count = f"{results:,} {'result' if results == 1 else 'results'}"
    set_ups = f"{len(table.set_ups):,} set-ups"
    same = common_text(table.set_ups) if table.set_ups else ""
    return f"{count}{f' of {set_ups}' if len(table.set_ups) > 1 else ''}{f': {same}' if same else ''}"


def _notes(table: Shown) -> list[tuple[str, str]]:
    """Reasons for what is not known, and what else a reader has to know."""
    reasons: dict[tuple[str, str], int] = {}
    for one in table.set_ups:
        for figure, reason in one.reasons.items():
            reasons[figure, reason] = reasons.get((figure, reason), 0) + 1
    all_ = len(table.set_ups)
    rows = [
        (f"{UNKNOWN} {figure}", reason + ("" if count == all_ else f" ({count} of {all_} set-ups)"))
        for (figure, reason), count in list(reasons.items())[: 2 * _SHOWN_OTHERS]
    ]
    apart = sum(len({start.hostnames for start in one.starts}) > 1 for one in table.set_ups)
    if apart:
        rows.append(("hosts", f"the starts of {apart} of {all_} set-ups ran on different hosts"))
    missing = sum((start.outputs_missing_count or 0) > 0 for one in table.set_ups for start in one.starts)
    if missing:
        what = table.units[0].count
        rows.append((what, f"of {missing:,} results some {what} are not in their folder"))
    if table.hidden:
        rows.append(("", f"and {table.hidden:,} more set-ups"))
    return rows


def other_rows(others: Sequence[ResultRecord]) -> list[tuple[str, str]]:
    """Lines about what is no complete result: the first ones, and the number of the rest."""
    rows = [(one.state.replace("_", " "), f"{one.path}: {one.reason}") for one in others[:_SHOWN_OTHERS]]
    more = len(others) - _SHOWN_OTHERS
    return [*rows, *([("", f"and {more:,} more that are no complete result (--json)")] if more > 0 else [])]


def _and_more(count: int) -> str:
    return f" (and {count} like it)" if count else ""


def markdown_text(text: str) -> str:
    """Text that cannot end a cell, and is no markup."""
    return shown(text).replace("|", "\\|").replace("<", "&lt;")


def _csv_value(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, (list, dict)) else value
