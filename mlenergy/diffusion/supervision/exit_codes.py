"""From an exception to one line on stderr, from one rank, and an exit code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from mlenergy.diffusion.distributed.cluster import Rank, first_to_fail, read_rank
from mlenergy.diffusion.errors import Interrupted, UserError

USER_ERROR = 2
UNEXPECTED = 1
INTERRUPTED = 130

# torchrun ends all processes as soon as one exits: a rank that has nothing to say lets the one that
# has finish its line first.
_TIME_TO_SPEAK_S = 5.0


def exit_code_of(program: Callable[[list[str], Rank], None]) -> int:
    """Run a program and turn whatever ends it into an exit code.

    0: done. 1: unexpected (one line; the traceback is in the log). 2: something that the user can mend
    (one line). 128 + n: ended by signal n.
    """
    rank = Rank()
    try:
        rank = read_rank()
        if not rank.is_main:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for the life of the process
        program(sys.argv[1:], rank)
    except UserError as error:
        _speak(rank, str(error))
        return USER_ERROR
    except Interrupted as stop:
        _speak(rank, str(stop))
        return 128 + stop.signum
    except KeyboardInterrupt:
        _speak(rank, "interrupted")
        return INTERRUPTED
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        notes = "; ".join(getattr(error, "__notes__", [])) or "--debug shows the traceback"
        text = " ".join(str(error).split()) or "no message"
        _speak(rank, f"unexpected {type(error).__name__} on rank {rank.rank}: {text}; {notes}")
        return UNEXPECTED
    return 0


def _speak(rank: Rank, line: str) -> None:
    if first_to_fail(rank):
        sys.stdout.flush()
        print(f"mlenergy: error: {' '.join(line.split())}", file=sys.stderr, flush=True)
    else:
        time.sleep(_TIME_TO_SPEAK_S)
