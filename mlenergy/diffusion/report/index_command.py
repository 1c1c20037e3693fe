"""The verb `mlenergy index DIR`: a table of all results below a folder, brought up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mlenergy.diffusion.config.parser import option_group, parse
from mlenergy.diffusion.report.lines import console_for, labelled, title

PROG = "mlenergy index"
SHOWN = 20  # of what is no complete result; the table has all


@option_group()
@dataclass(frozen=True)
class IndexArgs:
    """Keep a Parquet table of all results below a folder; only what changed is read again.

    pandas, polars and DuckDB read it as it is. docs/reports.md describes its columns.
    """

    dir: tyro.conf.Positional[Path]
    """The folder that holds results, at any depth."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The table. Default: index.parquet in the folder."""


def main(argv: list[str]) -> int:
    """Make the index of a folder, or bring it up to date, and say what it holds.

    Raises:
        UserError: the folder is not there, or the table cannot be written.
    """
    args = parse(IndexArgs, argv, PROG)
    from mlenergy.diffusion.results.index import refresh  # pyarrow takes a third of a second

    done = refresh(args.dir, args.out, _progress)
    console = console_for(sys.stdout)
    results = done.states["complete"]
    changes = {"new": done.new, "read again": done.read_again, "removed": done.removed}
    said = ", ".join(f"{count:,} {what}" for what, count in changes.items() if count) or "nothing changed"
    heading = f"{done.file}: {results:,} {'result' if results == 1 else 'results'} ({said})"
    console.print(title(heading), soft_wrap=True)
    for line in labelled(unusable_rows(done.unusable)):
        console.print(line, soft_wrap=True)
    return 0


def unusable_rows(unusable: Sequence[tuple[str, str, str]], shown: int = SHOWN) -> Iterable[tuple[str, str]]:
    """Lines about what is no complete result: state, and path with reason; the last one counts the rest."""
    for state, path, reason in unusable[:shown]:
        yield state.replace("_", " "), f"{path}: {reason}"
    if len(unusable) > shown:
        yield "", f"and {len(unusable) - shown:,} more: rows of mlenergy index whose state is not complete"


def _progress(done: int, of: int) -> None:
    """One line on a terminal that is overwritten; a pipe gets none."""
    if sys.stderr.isatty() and of > 1000:
        end = "\r" if done + 100 < of else "\r\x1b[K"
        print(f"reading {done:,} of {of:,}", end=end, file=sys.stderr, flush=True)
