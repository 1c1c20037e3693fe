"""A thread of each rank that receives signals and notices hangs while the main thread may be stuck.

Python runs a signal's handler in the main thread only, and only between its own instructions: never
while that thread waits in a collective for a peer that has exited. The descriptor that Python writes to
at once is read here instead.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.distributed.store import Store
from mlenergy.diffusion.supervision.exit_codes import HANG, UNEXPECTED
from mlenergy.diffusion.supervision.starting import SIGNALS, is_nohup

_TICK_S = 1.0
# torchrun kills its processes 30 s after it has passed SIGTERM on; files take a moment too.
GRACE_S = 20.0
# How much later than at --hang_timeout_s a rank ends that cannot even ask the others.
_ALONE_S = 15.0


class Watch:
    """Receiver of SIGINT, SIGTERM, SIGUSR1 and SIGHUP, and clock of the main thread's silence.

    The first one lets the window end that runs. After a SIGINT a second one ends the run at once. Under
    torchrun that one comes as SIGTERM, which is its answer to a second Ctrl-C, or as its own end.

    Args:
        store: shared by all ranks: one rank's stop or hang is everyone's.
        stacks: where this rank's stacks go when a hang is found.
        hang_timeout_s: longest silence of the main thread; 0: any.
        lost_peer: names a process of this run that has exited, None while all run.
        abandon: told why, by which signal (None: by none) and with which exit code, when the run cannot
            end by itself; it writes what is left to write.
        rank: this process's.
    """

    def __init__(
        self,
        store: Store,
        stacks: Path,
        hang_timeout_s: float,
        lost_peer: Callable[[], str | None],
        abandon: Callable[[str, int | None, int], None],
        rank: Rank,
    ) -> None:
        self._store = store
        self._stacks = stacks
        self._hang_timeout_s = hang_timeout_s
        self._lost_peer = lost_peer
        self._abandon = abandon
        self._launcher = os.getppid() if rank.launched else None
        # Rank 0 goes first: it has the words, and the others' end would look like a failure to it.
        self._patience_s = 0.0 if rank.is_main else 3 * _TICK_S
        self._second = (signal.SIGTERM,) if rank.launched else (signal.SIGTERM, signal.SIGINT)
        self._lost_at_stop: str | None = None
        self._launcher_at_stop = True
        self._last_beat_s = time.monotonic()
        self._deadline_s: float | None = None
        self._wakeup_recv, self._wakeup_send = socket.socketpair()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._guard = threading.Thread(target=self._watch_alone, name="watch-alone", daemon=True)
        self._before: dict[int, Any] = {}  # handlers that were there
        self.stop_signal: int | None = None
        self.grace_s = 0.0  # how long a stop waits for the main thread

    def start(self) -> None:
        """Install the handlers. Only from the main thread: Python lets no other set them."""
        for end in (self._wakeup_recv, self._wakeup_send):
            end.setblocking(False)
        for number in SIGNALS:
            if is_nohup(number):
                continue
            # Without a handler of Python's own the process would end at once.
            self._before[number] = signal.signal(number, _ignore)
        # Python's C-level handler writes the signal's number to this descriptor at once, whatever the main
        # thread waits in; its own handlers run later, between two instructions of that thread (see
        # "Execution of Python signal handlers" in the signal module's documentation).
        signal.set_wakeup_fd(self._wakeup_send.fileno(), warn_on_full_buffer=False)
        self._thread.start()
        self._guard.start()

    def beat(self) -> None:
        """The main thread is alive."""
        self._last_beat_s = time.monotonic()

    def close(self) -> None:
        """Stop listening: signals end the process again."""
        self._is_over.set()
        signal.set_wakeup_fd(-1)
        self._wakeup_send.send(b"\0")  # no signal's number: the thread wakes now, and not at its next tick
        for number, handler in self._before.items():
            is_plain = handler in (signal.SIG_IGN, signal.default_int_handler)
            signal.signal(number, handler if is_plain else signal.SIG_DFL)
        self._thread.join(timeout=2 * _TICK_S)

    def end_stopped(self) -> None:
        """End this process as after a signal, from the main thread; only where one has come."""
        assert self.stop_signal is not None
        self._end("a peer has ended", self.stop_signal)

    def _run(self) -> None:
        while not self._is_over.is_set():
            ready, _, _ = select.select([self._wakeup_recv], [], [], _TICK_S)
            for number in self._wakeup_recv.recv(64) if ready else b"":
                if number in SIGNALS:
                    self._on_signal(number)
            if not self._is_over.is_set():
                self._look_round()

    def _watch_alone(self) -> None:
        """Asking the store takes for ever where its host is cut off, so this thread never does."""
        while not self._is_over.wait(_TICK_S):
            silence_s = time.monotonic() - self._last_beat_s
            if self._hang_timeout_s and silence_s > self._hang_timeout_s + _ALONE_S:
                self._leave_stacks()
                os._exit(HANG)

    def _on_signal(self, number: int) -> None:
        is_second = self.stop_signal == signal.SIGINT and number in self._second
        if (
            is_second and self._lost_peer() is None
        ):  # or torchrun sends it since that peer has ended, as it should
            self._end("a second signal ended it at once", signal.SIGINT)
        # torchrun sends SIGTERM too where a peer has died: only who is gone by now is a reason, and no
        # consequence.
        own = {"number": number, "lost": self._lost_peer()}
        stands = self._store.set_once("stop", own)
        self._take_stop(own if stands else self._store.read("stop") or own)

    def _take_stop(self, stop: dict[str, Any]) -> None:
        if self.stop_signal is None:
            self._lost_at_stop = stop["lost"]
            self.stop_signal = int(stop["number"])
            self._launcher_at_stop = not self._launcher_has_left()
            self._deadline_s = time.monotonic() + self.grace_s + self._patience_s

    def _look_round(self) -> None:
        stop = self._store.read("stop")
        if stop is not None:
            self._take_stop(stop)
        silence_s = time.monotonic() - self._last_beat_s
        if self._hang_timeout_s and silence_s > self._hang_timeout_s:
            self._store.set_once(
                "hang", f"no progress for {silence_s:.0f} s (--hang_timeout_s {self._hang_timeout_s:g})"
            )
        if self.stop_signal is None and self._launcher_has_left():
            self._on_signal(signal.SIGTERM)  # which the kernel sends too, where it can
        hang = self._store.read("hang")
        if hang is not None:
            self._end_hanging(str(hang))
        elif self.stop_signal is not None:
            self._look_after_stop()

    def _look_after_stop(self) -> None:
        if self._launcher_at_stop and self._launcher_has_left():
            self._end("its launcher ended without waiting for it", self.stop_signal)
        elif self._store.read("failure") is not None:
            self._end("a peer failed", None)
        elif self._lost_at_stop is not None:
            self._end(self._lost_at_stop, None)
        elif self._deadline_s is not None and time.monotonic() > self._deadline_s:
            self._end(f"it did not end within {self.grace_s:g} s", self.stop_signal)

    def _launcher_has_left(self) -> bool:
        return self._launcher is not None and (os.getppid() != self._launcher or self._store.is_lost)

    def _end_hanging(self, reason: str) -> None:
        """Leave the stacks, give the other ranks time to leave theirs, and end."""
        error = self._leave_stacks()
        if error is not None:
            reason = f"{reason}; its stacks could not be written: {error}"
        time.sleep(3 * _TICK_S)
        self._abandon(f"hang: {reason}; stacks are in {self._stacks.parent}", None, HANG)
        os._exit(HANG)

    def _leave_stacks(self) -> OSError | None:
        try:
            with self._stacks.open("w") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            return error
        return None

    def _end(self, reason: str, number: int | None) -> None:
        exit_code = 128 + number if number else UNEXPECTED
        self._abandon(reason, number, exit_code)
        os._exit(exit_code)


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: the thread reads the signal from the wake-up descriptor."""
