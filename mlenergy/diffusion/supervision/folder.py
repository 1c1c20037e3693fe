"""The result folder of a run while it is made: its lock, its log and its status."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.results.aside import keep_broken, keep_interrupted
from mlenergy.diffusion.results.lock import result_lock
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete
from mlenergy.diffusion.results.save import accept_no_effect
from mlenergy.diffusion.results.swap import recover_interrupted_swap
from mlenergy.diffusion.supervision.exit_codes import message_of
from mlenergy.diffusion.supervision.starting import when_interrupted
from mlenergy.diffusion.supervision.status import StatusFile, describe, mark_complete
from mlenergy.diffusion.supervision.terminal import Terminal, redirect_output, spare_log_path


@dataclass(frozen=True)
class ResultFolder:
    """The folder that this process works for."""

    paths: RunPaths
    terminal: Terminal
    is_done: bool  # a complete result is there already; rank 0 alone knows
    status: StatusFile | None  # on rank 0 of a run that is to be made


@contextmanager
def result_folder(
    paths: RunPaths, rank: Rank, *, overwrite: bool, allow_no_effect: bool, debug: bool
) -> Iterator[ResultFolder]:
    """Hold the folder's lock on rank 0, and send every rank's output to a log, while the body runs.

    Args:
        paths: of the run.
        rank: this process.
        overwrite: measure again although a complete result is there.
        allow_no_effect: take a result whose optimization had no effect for complete.
        debug: leave the output on the terminal.

    Raises:
        UserError: another run holds the lock, or the folder cannot be written.
    """
    log, is_done = spare_log_path(rank.rank), False
    notes: list[str] = []
    with ExitStack() as stack:
        if rank.is_main:
            stack.enter_context(result_lock(paths.lock))
            is_done, notes = _found(paths, overwrite, allow_no_effect)
            # The log of the run that measured stays.
            log = paths.folder / "driver_log.skipped.txt" if is_done else paths.driver_log
        terminal = stack.enter_context(redirect_output(log, debug=debug))
        for note in notes:
            print(note, file=terminal.err)
        status = StatusFile(paths.status, rank.world_size) if rank.is_main and not is_done else None
        if status is not None:
            status.write()  # from now on an earlier run's end is not taken for this one's
            when_interrupted(partial(_write_stop, status))
        try:
            yield ResultFolder(paths, terminal, is_done, status)
        except BaseException as error:
            if status is not None and not status.has_ended:  # before supervision began, or after it
                _write_end(status, error, rank.rank)
            raise
    if log != paths.driver_log:
        log.unlink(missing_ok=True)


def _found(paths: RunPaths, overwrite: bool, allow_no_effect: bool) -> tuple[bool, list[str]]:
    """True where a complete result is there, and lines on anything else, which is moved out of the way."""
    notes: list[str] = []
    recover_interrupted_swap(paths)
    broken = None if overwrite else keep_broken(paths)
    if broken is not None:
        notes.append(f"{broken[0]}: what was there is kept in {broken[1]}, and all is measured anew")
    is_done = not overwrite and (is_complete(paths) or (allow_no_effect and _accept(paths)))
    interrupted = None if is_done else keep_interrupted(paths)
    if interrupted is not None:
        notes.append(f"what an interrupted run measured is kept in {interrupted}; this one starts anew")
    return is_done, notes


def _write_end(status: StatusFile, error: BaseException, rank: int) -> None:
    if isinstance(error, KeyboardInterrupt):
        _write_stop(status, signal.SIGINT, message_of(error, rank))
    else:
        status.write(state="failed", **describe(error, rank))


def _write_stop(status: StatusFile, number: int, line: str) -> None:
    """Put on record that a signal has ended the run before it was under supervision."""
    name = signal.Signals(number).name
    status.write(state="interrupted", signal=name, message=line, exit_code=128 + number)


def _accept(paths: RunPaths) -> bool:
    """Complete a result that an earlier run has kept as `effects_failed`; returns whether there was one."""
    if not accept_no_effect(paths):
        return False
    mark_complete(paths.status)
    return True
