"""Signals that come before anything is measured: one line and an exit code, instead of a kill without a word.

Importing torch takes seconds and joining other hosts may take minutes, for long stretches in C++, where
Python runs no handlers. Hence a thread that answers at once, and imports of the standard library alone.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from mlenergy.diffusion.errors import interrupted_before_measuring

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
# Path of a file that a launcher makes and that the first of its processes removes as soon as it listens.
UNHEARD = "MLENERGY_UNHEARD_FILE"


def is_nohup(number: int) -> bool:
    """True for a SIGHUP that this process was started to ignore."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


class Starting:
    """Answer to signals while a process starts, until something else takes them over. A context manager.

    Whoever installs handlers of its own (torchrun, the watch over a run) has taken over.

    Args:
        speaks: print the line; of several processes one alone does.
        signals: that end the process.
        exit_code: of the process, by the signal that ended it.
    """

    def __init__(
        self,
        *,
        speaks: bool,
        signals: tuple[signal.Signals, ...] = SIGNALS,
        exit_code: Callable[[int], int] = lambda number: 128 + number,
    ) -> None:
        self._exit_code = exit_code
        self._speaks = speaks
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self._terminal = os.dup(2)  # the process's own stderr may become a log meanwhile
        self._received, self._sends = socket.socketpair()

    def __enter__(self) -> Starting:
        self._sends.setblocking(False)
        for number in self._signals:
            if is_nohup(number):
                continue
            self._before[number] = signal.signal(number, self._in_main_thread)
        signal.set_wakeup_fd(self._sends.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="starting", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        woken = signal.set_wakeup_fd(-1)
        if woken not in (-1, self._sends.fileno()):
            signal.set_wakeup_fd(woken)
        for number, handler in self._before.items():
            if self._is_ours(number):
                signal.signal(number, handler)
        self._sends.close()

    def _is_ours(self, number: int) -> bool:
        return signal.getsignal(number) == self._in_main_thread

    def _listen(self) -> None:
        while received := self._received.recv(64):
            for number in received:
                if number in self._signals and self._is_ours(number):
                    self._end(signal.Signals(number))

    def _end(self, number: signal.Signals) -> None:
        line = interrupted_before_measuring(number, "starting")
        for tell in _listeners:
            with suppress(Exception):  # ending matters more
                tell(number, line)
        if self._speaks:
            with suppress(OSError):
                os.write(self._terminal, f"mlenergy: error: {line}\n".encode())
        os._exit(self._exit_code(number))

    def _in_main_thread(self, number: int, _frame: FrameType | None) -> None:
        """Do nothing: the thread has been woken."""


_listeners: list[Callable[[signal.Signals, str], object]] = []


def when_interrupted(tell: Callable[[signal.Signals, str], object]) -> None:
    """Have this function called, with the signal and the line, before a signal ends this starting process."""
    _listeners[:] = [tell]


def answer_signals(environ: Mapping[str, str] = os.environ) -> None:
    """Answer signals in a process of a run, until the watch over the run takes them over."""
    Starting(speaks=environ.get("RANK", "0") == "0").__enter__()
    unheard = environ.get(UNHEARD)
    if unheard is not None and environ.get("LOCAL_RANK", "0") == "0":
        Path(unheard).unlink(missing_ok=True)
