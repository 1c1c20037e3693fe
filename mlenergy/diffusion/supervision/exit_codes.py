"""Exit codes of a run, and the one line on stderr that goes with each."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from mlenergy.diffusion.distributed.cluster import Rank, first_to_fail, read_rank
from mlenergy.diffusion.errors import CheckError, Interrupted, UserError

UNEXPECTED = 1
USER_ERROR = 2
HANG = 75  # "temporary failure" of sysexits.h: worth another try
INTERRUPTED = 130

# torchrun ends all processes as soon as one exits: a rank that has nothing to say lets the one that
# has finish its line first.
_TIME_TO_SPEAK_S = 5.0


def exit_code_of(program: Callable[[list[str], Rank], None]) -> int:
    """Run a program and turn whatever ends it into an exit code, with one line on stderr.

    0: done. 1: unexpected (the traceback is in the log), or a check after the measuring crashed.
    2: something that the user can fix. 128 + n: ended by signal n.
    """
    rank = Rank()
    try:
        rank = read_rank()
        if not rank.is_main:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for the life of the process
        program(sys.argv[1:], rank)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        line = message_of(error, rank.rank)
        if exit_code_for(error) == UNEXPECTED:
            if "--debug" in sys.argv:
                raise
            notes = "; ".join(getattr(error, "__notes__", [])) or "--debug shows the traceback"
            line = f"{line}; {notes}"
        _print_error(rank, line)
        return exit_code_for(error)
    return 0


def exit_code_for(error: BaseException) -> int:
    """The exit code of a run that ends with this exception."""
    if isinstance(error, UserError):
        return USER_ERROR
    if isinstance(error, Interrupted):
        return 128 + error.signum
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else UNEXPECTED


def message_of(error: BaseException, rank: int) -> str:
    """The exception as one line; one that nobody expected with its type and rank."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return text or "interrupted"
    if is_unexpected(error):
        return f"unexpected {type(error).__name__} on rank {rank}: {text or 'no message'}"
    return text


def is_unexpected(error: BaseException) -> bool:
    """True for an error that is no line of this program."""
    return not isinstance(error, (UserError, Interrupted, CheckError, KeyboardInterrupt))


def _print_error(rank: Rank, line: str) -> None:
    if first_to_fail(rank):
        sys.stdout.flush()
        print(f"mlenergy: error: {line}", file=sys.stderr, flush=True)
    else:
        time.sleep(_TIME_TO_SPEAK_S)
