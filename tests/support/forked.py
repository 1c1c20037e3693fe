"""``subprocess`` for Python processes that need torch: forked from a server that has imported it already.

`run` and `Popen` take what their namesakes in ``subprocess`` take. Commands of another program, and those
that fork_server.py refuses, are started as ever. What a forked process starts goes the same way, so that one
fork is torchrun with its workers, or a sweep with its runs.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LENGTH = struct.Struct("!Q")
SOCKET = "FORK_SERVER"  # environment variable; its absence makes all starts real
_REAL = subprocess.Popen
_MODULES = ("mlenergy.diffusion", "torch.distributed.run")
_CONSOLE = str(Path(sys.executable).with_name("mlenergy"))
_SUPPORT = str(Path(__file__).parent)
_START_LIMIT_S = 120


def run(
    command: Sequence[str],
    *,
    input: Any = None,
    capture_output: bool = False,
    check: bool = False,
    timeout: float | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """As subprocess.run."""
    _serve()
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Popen(command, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """As subprocess.Popen; ``pid`` is the forked process, which is a child of the server."""

    _connection: socket.socket | None = None

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *others: Any) -> None:
        # The order of these arguments is that of Python 3.11 to 3.13.
        _, pass_fds, cwd, env, _, _, shell, *pipes = others[:13]
        new_session = others[18]
        asked = None if preexec_fn or pass_fds or shell else _words_for_server(args)
        if asked is not None:
            asked |= {
                "folder": os.fspath(cwd or Path.cwd()),
                "environ": dict(os.environ if env is None else env),
                "new_session": bool(new_session),
            }
            asked["environ"][SOCKET] = _serve()
            ends = [end if end != -1 else number for number, end in enumerate(pipes[::2][:1] + pipes[3::2])]
            self._connection = _start(asked, ends)
        if self._connection is None:
            super()._execute_child(args, executable, preexec_fn, *others)
            return
        self._child_created = True
        self.pid = LENGTH.unpack(self._connection.recv(LENGTH.size, socket.MSG_WAITALL))[0]
        self._close_pipe_fds(*pipes)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._connection is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc,no-any-return]
        flags = socket.MSG_DONTWAIT if wait_flags else socket.MSG_WAITALL
        try:
            told = self._connection.recv(LENGTH.size, flags)
        except BlockingIOError:
            return 0, 0
        self._connection.close()
        return self.pid, LENGTH.unpack(told)[0] if told else 1 << 8

    def _internal_poll(self, _deadstate: int | None = None, *others: Any) -> int | None:
        if self._connection is None:
            return super()._internal_poll(_deadstate, *others)  # type: ignore[misc,no-any-return]
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


# For a module under test that starts processes which may be forked.
AS_SUBPROCESS = SimpleNamespace(
    run=run,
    Popen=Popen,
    PIPE=subprocess.PIPE,
    DEVNULL=subprocess.DEVNULL,
    TimeoutExpired=subprocess.TimeoutExpired,
)


def running() -> dict[int, dict[str, Any]]:
    """Process id -> words and environment of each forked process that has not ended."""
    notes = {}
    for note in Path(_serve()).parent.glob("*.running"):
        with contextlib.suppress(OSError, ValueError):  # ended, or begins, at this moment
            notes[int(note.stem)] = json.loads(note.read_text())
    return notes


def note(pid: int, asked: dict[str, Any] | None) -> None:
    """Keep what a process that begins was asked for; with None, it has ended."""
    path = Path(os.environ[SOCKET]).with_name(f"{pid}.running")
    if asked is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(json.dumps(asked))


def inside() -> None:
    """In a forked process: what it starts is forked too."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    subprocess.Popen = Popen  # type: ignore[misc]
    subprocess_handler.Popen = Popen  # type: ignore[misc]


def _words_for_server(args: Any) -> dict[str, Any] | None:
    """Options and words of a command that the server can run, or None."""
    if isinstance(args, (str, bytes, os.PathLike)):
        return None
    words = [os.fspath(word) for word in args]  # paths among them
    if words[0] == _CONSOLE:
        return {"options": [], "words": words}
    if words[0] != sys.executable:
        return None
    options = []
    while len(words) > 1 and words[1] in ("-u",):
        options.append(words.pop(1))
    words = words[1:]
    is_module = words[0] == "-m" and words[1].startswith(_MODULES)
    if is_module or words[0] == "-c" or words[0].startswith(_SUPPORT):
        return {"options": options, "words": words}
    return None


def _start(asked: dict[str, Any], descriptors: list[int]) -> socket.socket | None:
    """The connection that tells the process's id, then how it ended; None where the server refuses."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(asked["environ"][SOCKET])
    body = json.dumps(asked).encode()
    socket.send_fds(connection, [LENGTH.pack(len(body))], descriptors)
    connection.sendall(body)
    if connection.recv(1, socket.MSG_PEEK):
        return connection
    connection.close()
    return None


_users: list[socket.socket] = []


def _serve() -> str:
    """The server's socket. The first of a session's processes that asks starts the server."""
    if SOCKET in os.environ:
        return os.environ[SOCKET]
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir()) / f"fork-{session[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "socket"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        user = socket.socket(socket.AF_UNIX)
        try:
            user.connect(str(path))
        except OSError:
            _start_server(path)
            user.connect(str(path))
        user.sendall(LENGTH.pack(0))
    _users.append(user)
    os.environ[SOCKET] = str(path)
    return str(path)


def _start_server(path: Path) -> None:
    path.unlink(missing_ok=True)
    log = path.with_name("log")
    with log.open("w") as stream:
        process = _REAL(
            [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    limit = time.monotonic() + _START_LIMIT_S
    while not path.exists():
        assert process.poll() is None and time.monotonic() < limit, log.read_text()
        time.sleep(0.05)
    atexit.register(process.wait)  # runs after the next one
    atexit.register(lambda: [user.close() for user in _users])
