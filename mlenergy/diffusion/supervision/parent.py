"""Processes that end with the one that started them, also where that one is killed and can tell nobody."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import time

LIFELINE = "MLENERGY_LIFELINE"  # in the environment: standard input is a pipe that the starter holds open
_PR_SET_PDEATHSIG = 1
_PATIENCE_S = 45.0  # torchrun gives its processes 30 s


def end_with_launcher() -> None:
    """Let SIGTERM come when torchrun, which started this process, ends; elsewhere than on Linux does nothing.

    A run that measures saves what it has, as after any SIGTERM. A process that torchrun has not started stays
    as it is: `nohup` and a shell that is closed are no reason to end it.

    Source: prctl(2), PR_SET_PDEATHSIG. A launcher that ended before this call is noticed by the process
    group, which cannot form without its store.
    """
    if sys.platform != "linux" or "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def hold_lifeline() -> None:
    """Send this process SIGTERM when the one that started it is gone, where that one has handed it a pipe.

    The kernel closes the pipe however its holder ends, so nothing can be missed, neither a kill nor an end
    before this call. The pipe is moved away from standard input, which becomes empty.
    """
    if os.environ.pop(LIFELINE, None) is None:
        return
    pipe = os.dup(0)  # not inherited by what this process starts
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    threading.Thread(target=_wait, args=(pipe,), name="lifeline", daemon=True).start()


def _wait(pipe: int) -> None:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.poll()  # nothing is ever written: what wakes is the end
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE_S)
    os._exit(128 + signal.SIGTERM)
