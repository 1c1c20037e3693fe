"""Progress on the user's terminal, drawn only between windows so that it costs none of them."""

from __future__ import annotations

from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mlenergy.diffusion.config.plan import Plan


class RunProgress:
    """A bar on a terminal, a line an event where the output is piped, nothing on other ranks.

    Use it as a context manager. `say` names the present step; `on_iteration` follows each call of the engine.
    """

    def __init__(self, stream: TextIO, plan: Plan, *, enabled: bool) -> None:
        self._console = Console(file=stream, quiet=not enabled, highlight=False)
        self._totals = {"warmup": plan.warmup_iters, "measured": plan.most_iters}
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if enabled and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
                # What others print belongs into the log, not above the bar.
                redirect_stdout=False,
                redirect_stderr=False,
                # No thread that redraws: it would run inside of the windows.
                auto_refresh=False,
            )
            self._task = self._bar.add_task("starting", total=sum(self._totals.values()))

    def __enter__(self) -> RunProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar off the terminal; safe to call again."""
        if self._bar is not None:
            self._bar.stop()

    def say(self, step: str) -> None:
        """Name what happens now, such as loading the model."""
        if self._bar is not None:
            self._bar.update(self._task, description=step)
            self._bar.refresh()
        else:
            self._console.print(step)

    def on_iteration(self, kind: str, index: int, seconds: float) -> None:
        """One call has ended: `kind` is warmup or measured, `index` counts from 0."""
        name = "warm-up" if kind == "warmup" else "measured"
        line = f"{name} {index + 1}/{self._totals[kind]}: {seconds:.3f} s"
        if self._bar is not None:
            self._bar.update(self._task, description=line, advance=1)
            self._bar.refresh()
        else:
            self._console.print(line)
