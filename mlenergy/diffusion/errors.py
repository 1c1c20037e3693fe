"""Exceptions that end a run in one line, and the quiet end of a command whose reader left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake or a missing thing that the user can fix.

    Its text is the single line the user sees: it says what is wrong, with the
    arithmetic where there is one, and ends in what to do next.
    """


class NoEffectError(UserError):
    """An optimization changed nothing; the result is kept, but not complete."""


class CheckError(Exception):
    """A check after the measuring crashed; the measured numbers are saved."""


class Interrupted(Exception):
    """A signal asked the run to end before its last window; `signum` says which."""

    def __init__(self, signum: int, text: str) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}: {text}")
        self.signum = signum


def interrupted_before_measuring(signum: int, stage: str) -> str:
    """The line of a run that a signal ended before its first window; `stage`: such as loading."""
    more = "; give the job more time" if signum == signal.SIGUSR1 else ""  # Slurm's, before a time limit
    name = signal.Signals(signum).name
    return f"interrupted by {name} while {stage}, before anything was measured: nothing is saved{more}"


def quiet_pipe(command: Callable[[], int]) -> int:
    """Run a command whose output may go to `head`: a closed pipe ends it without a traceback.

    Returns:
        The command's exit code; 128 + SIGPIPE after a closed pipe, as a shell reports it for other programs.
    """
    try:
        try:
            code = command()
        finally:
            sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as stop:
        # rich answers a closed pipe by SystemExit(1).
        if not isinstance(stop, BrokenPipeError) and not isinstance(stop.__context__, BrokenPipeError):
            raise
        # Python flushes once more as it ends, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code
