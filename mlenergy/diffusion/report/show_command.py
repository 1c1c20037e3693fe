"""The verb `mlenergy show PATH…`: a table of results."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TextIO

import tyro
from rich.console import Console

from mlenergy.diffusion.config.parser import option_group, parse
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.report.set_ups import column_name, kept, ordered
from mlenergy.diffusion.report.show_view import Shown, csv_text, json_text, markdown, print_table
from mlenergy.diffusion.results.collect import Collection, collect, no_results
from mlenergy.diffusion.results.repeats import pool

PROG = "mlenergy show"
_PIPED_WIDTH = 120  # without a terminal, which would have one


@option_group()
@dataclass(frozen=True)
class ShowArgs:
    """Print a table of results: seconds and joules an image or video, memory, what they differ in.

    Repeats of one set-up are one row, with the interval over its starts. docs/reports.md describes it.
    """

    path: tyro.conf.Positional[tuple[str, ...]]
    """Result folders, folders that hold some at any depth, or patterns in quotes."""
    sort: Annotated[str, tyro.conf.arg(metavar="COLUMN")] = "seconds"
    """Column to sort by, the smallest first."""
    reverse: bool = False
    """Sort the largest first."""
    filter: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="CONDITION")] = ()
    """Show only what meets the condition, such as 'batch_size >= 4'. It may be given several times."""
    columns: Annotated[str | None, tyro.conf.arg(metavar="COLUMN,...")] = None
    """Columns to show, separated by commas. Default: the figures, and what the set-ups differ in."""
    limit: int | None = None
    """The most rows to show. Default: all."""
    csv: bool = False
    """Print CSV, with numbers in full."""
    markdown: bool = False
    """Print a table of Markdown."""
    json: bool = False
    """Print JSON, with numbers in full and the result folders of each row."""


def main(argv: list[str]) -> int:
    """Print the table.

    Raises:
        UserError: a path, column or condition is not understood, or no complete result is there.
    """
    args = parse(ShowArgs, argv, PROG)
    if args.csv + args.markdown + args.json > 1:
        raise UserError("--csv, --markdown and --json exclude each other; choose one of them")
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit: '{args.limit}' is not a whole number of 1 or more; see {PROG} --help")
    found = collect(args.path)
    if not found.results:
        raise no_results(args.path, found.others)
    table = table_of(found, args.sort, args.reverse, args.filter, args.columns, args.limit)
    forms = {"csv": csv_text, "markdown": markdown, "json": json_text}
    for name, form in forms.items():
        if getattr(args, name):
            print(form(table), end="")
            return 0
    print_table(table, wide_console(sys.stdout))
    return 0


def table_of(
    found: Collection,
    sort: str = "seconds",
    reverse: bool = False,
    filters: Sequence[str] = (),
    columns: str | None = None,
    limit: int | None = None,
) -> Shown:
    """The table of a collection.

    Raises:
        UserError: a column or condition is not understood, or nothing meets the conditions.
    """
    set_ups = pool(found.results)
    by = column_name(sort, set_ups, "sort")
    names = None
    if columns is not None:
        names = [column_name(name, set_ups, "columns") for name in columns.split(",") if name.strip()]
        if not names:
            raise UserError(f"--columns needs a column; see {PROG} --help")
    rows = kept(set_ups, filters)
    if not rows:
        raise UserError(f"none of {len(set_ups):,} set-ups meets {' and '.join(filters)}; change --filter")
    rows = ordered(rows, by, reverse)
    return Shown(rows[:limit], found.others, names, len(rows) - len(rows[:limit]))


def wide_console(stream: TextIO) -> Console:
    """A console for tables: as wide as the terminal, and wide enough where output is piped."""
    known = stream.isatty() or "COLUMNS" in os.environ
    return Console(
        file=stream, width=None if known else _PIPED_WIDTH, highlight=False, markup=False, emoji=False
    )
