"""The output of a sweep: a live table on a terminal, lines where output is piped, and the final lists."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mlenergy.diffusion.executors.ledger import Entry, Ledger, LogFile
from mlenergy.diffusion.executors.local import LocalExecutor

_COLORS = {
    "complete": "green",
    "failed": "red",
    "interrupted": "yellow",
    "running": "cyan",
    "submitted": "cyan",
}
_SHOWN_ENDED = 8  # of the runs that have ended, the latest


class SweepLog(LogFile):
    """The sweep's own log file, whose lines are printed too where no live table is."""

    def __init__(self, file: Path, console: Console) -> None:
        super().__init__(file)
        self._console = console

    def print(self, line: str) -> None:
        """Append a line to the file, and print it unless a live table is shown."""
        self.write(line)
        if not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def live_table(
    executor: LocalExecutor, numbers: dict[str, int], console: Console
) -> Iterator[Callable[[], None]]:
    """Yield a function that redraws a table on the terminal, at most four times a second."""
    if not console.is_terminal:
        yield lambda: None
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        last = [0.0]

        def refresh() -> None:
            if time.monotonic() - last[0] > 0.25:
                last[0] = time.monotonic()
                live.update(progress(executor, numbers), refresh=True)

        yield refresh


def progress(executor: LocalExecutor, numbers: dict[str, int]) -> Group:
    """The running jobs, those that ended last, and the counts."""
    ended = [(key, entry) for key, entry in executor.ledger.entries.items() if key in numbers and entry.ended]
    ended.sort(key=lambda pair: pair[1].ended or "")
    table = run_table([])
    for key, entry in ended[-_SHOWN_ENDED:]:
        if entry.state != "running":
            _add(table, numbers[key], entry, entry.duration_s, "")
    for attempt in executor.running:
        key = attempt.job.key
        places = ",".join(place for place in attempt.places if place)
        _add(table, numbers[key], executor.ledger.entries[key], attempt.elapsed_s, places)
    return Group(table, Text(count_line(executor.ledger, numbers, len(executor.waiting))))


def run_table(rows: Sequence[tuple[int, Entry]]) -> Table:
    """A table with one row for each run."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (("run", "right"), ("set-up", "left"), ("processes", "right"), ("state", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]  # a literal of rich's
    for name in ("attempt", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("GPUs or message", overflow="fold")
    for number, entry in rows:
        _add(table, number, entry, entry.duration_s, "")
    return table


def _add(table: Table, number: int, entry: Entry, seconds: float | None, places: str) -> None:
    state = Text(entry.state, style=_COLORS.get(entry.state, ""))
    shown = "" if seconds is None else f"{seconds:.0f}"
    message = Text(entry.message or places or entry.slurm_task or "")
    table.add_row(
        str(number),
        Text(entry.label),
        str(entry.processes or ""),
        state,
        str(entry.attempts or ""),
        shown,
        message,
    )


def count_line(ledger: Ledger, numbers: dict[str, int], waiting: int | None = None) -> str:
    """One line such as `12 runs: 7 complete, 1 failed, 2 running, 2 waiting`."""
    counts = ledger.counts(numbers)
    order = ("complete", "failed", "interrupted", "running", "submitted", "pruned", "filtered", "planned")
    parts = [f"{counts[state]} {state}" for state in order if counts[state]]
    if waiting is not None:
        parts.append(f"{waiting} waiting")
    return f"{len(numbers)} runs: " + (", ".join(parts) or "nothing to do")
