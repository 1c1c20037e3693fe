"""Progress on the user's terminal; once windows begin it is drawn between them, so that it costs none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from mlenergy.diffusion.config.plan import Plan

_SPINS_PER_S = 8.0


@contextmanager
def waiting(step: str, stream: TextIO, *, enabled: bool) -> Iterator[None]:
    """A spinner beside a step while the body runs; only on a terminal."""
    console = Console(file=stream, highlight=False)
    if not (enabled and console.is_terminal):
        yield
        return
    with _spinner(console) as drawn:
        drawn.add_task(step, total=None)
        yield


class RunProgress:
    """A spinner, then a bar on a terminal; a line an event where the output is piped; nothing on other ranks.

    Use it as a context manager. `say` names the present step, beside which a thread keeps a spinner and the
    elapsed time moving; `begin_iterations` ends that thread, and `on_iteration` follows each engine call.
    """

    def __init__(self, stream: TextIO, plan: Plan, *, enabled: bool) -> None:
        self._console = Console(file=stream, quiet=not enabled, highlight=False)
        self._totals = {"warmup": plan.warmup_iters, "measured": plan.most_iters}
        self._compiles = bool(plan.optimizations.compiled_parts)
        self._shown: Progress | None = None
        self._task = TaskID(0)
        self._threads: set[threading.Thread] = set()

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take what is drawn off the terminal, and end its thread; safe to call again."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None
            for thread in self._threads:  # rich does not wait for its thread, which wakes at once and ends
                thread.join()

    def say(self, step: str) -> None:
        """Name what happens now, such as loading the model."""
        if not self._draws:
            self._console.print(step)
        elif self._shown is None:
            self._start(_spinner(self._console), step, None)
        else:
            self._shown.update(self._task, description=step)
            self._shown.refresh()

    def begin_iterations(self) -> None:
        """Warm-up and windows begin: from now on no thread draws."""
        self.close()
        if self._draws:
            bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            step = "warming up, compiling" if self._compiles else "warming up"
            drawn = _transient(self._console, *bar, auto_refresh=False)
            self._start(drawn, step if self._totals["warmup"] else "measuring", sum(self._totals.values()))

    def on_iteration(self, kind: str, index: int, seconds: float) -> None:
        """One call has ended: `kind` is warmup or measured, `index` counts from 0."""
        name = "warm-up" if kind == "warmup" else "measured"
        line = f"{name} {index + 1}/{self._totals[kind]}: {seconds:.3f} s"
        if self._shown is not None:
            self._shown.update(self._task, description=line, advance=1)
            self._shown.refresh()
        else:
            self._console.print(line)

    @property
    def _draws(self) -> bool:
        return self._console.is_terminal and not self._console.quiet

    def _start(self, drawn: Progress, step: str, total: int | None) -> None:
        self._shown = drawn
        self._task = drawn.add_task(step, total=total)
        before = set(threading.enumerate())
        drawn.start()
        self._threads = set(threading.enumerate()) - before


def _spinner(console: Console) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return _transient(console, *columns, auto_refresh=True)


def _transient(console: Console, *columns: ProgressColumn, auto_refresh: bool) -> Progress:
    return Progress(
        *columns,
        console=console,
        transient=True,
        # What others print belongs into the log, not above the bar.
        redirect_stdout=False,
        redirect_stderr=False,
        auto_refresh=auto_refresh,
        refresh_per_second=_SPINS_PER_S,
    )
