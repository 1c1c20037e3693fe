"""A process that has imported the libraries once, and forks itself for each Python process that tests want.

Importing torch, transformers and diffusers takes five seconds of a core; a fork takes some milliseconds. A
forked process gets the words, environment, folder and descriptors of a real start, runs the module, script or
code as ``__main__``, and gives its exit code. It does not get variables that a library reads on import
(such starts are refused, and `forked` makes them real), nor the interpreter's own end. xfuser is not imported
here: its import is part of what is tested.

    python tests/support/fork_server.py SOCKET        # started by forked.py, ends with the last of its users
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import forked

LIBRARIES = (
    *("torch", "torch.distributed.run", "transformers", "diffusers", "accelerate", "peft", "torchao"),
    *("datasets", "pyarrow.parquet", "scipy.stats", "scipy.optimize", "zeus.monitor", "zeus.device.cpu"),
)
PIPELINES = ("Flux", "StableDiffusion3", "StableDiffusionXL", "StableDiffusion", "PixArtAlpha", "PixArtSigma")
# Modules of ours that are entries of processes, or import xfuser.
NOT_IMPORTED = ("engines.xdit", "_process", "__main__", "executors.start", "diffusion.benchmark")
# Read as a library is imported, or before: a process that wants other ones has to be started.
READ_EARLY = ("HF_", "TRANSFORMERS_", "DIFFUSERS_", "PYTHON", "TORCHINDUCTOR_", "TORCH_LOGS", "XFUSER_")
# Begin alike, but are read each time that they are needed. torch sets the second one as it first compiles.
READ_LATE = ("PYTHONPATH", "TORCHINDUCTOR_CACHE_DIR", "HF_TOKEN")


def main(path: str) -> None:
    """Import, then serve; a forked process comes back from serving and runs what was asked for."""
    sys.path.pop(0)  # this script's folder
    before = dict(os.environ)
    import_all()
    added = {name: value for name, value in os.environ.items() if name not in before}
    gc.collect()
    gc.freeze()
    os.environ[forked.SOCKET] = path
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen(64)
        Path(f"{path}.new").rename(path)
        asked = Server(listener, added).serve()
    if asked is not None:
        run_and_exit(*asked)
    else:
        shutil.rmtree(Path(path).parent)


def import_all() -> None:
    """Everything that a run imports, but for xfuser."""
    for name in LIBRARIES:
        importlib.import_module(name)
    import diffusers

    for name in (*PIPELINES, "HunyuanDiT"):
        getattr(diffusers, f"{name}Pipeline")
    import mlenergy.diffusion as ours

    for found in pkgutil.walk_packages(ours.__path__, f"{ours.__name__}."):
        if not any(part in found.name for part in NOT_IMPORTED):
            importlib.import_module(found.name)


class Server:
    """Accepts users and starts, and tells each start how it ended."""

    def __init__(self, listener: socket.socket, added: dict[str, str]) -> None:
        self.listener = listener
        self.added = added  # by the imports to the environment
        self.environ = early(os.environ)
        self.users: set[socket.socket] = set()
        self.running: dict[int, socket.socket] = {}

    def serve(self) -> tuple[dict[str, Any], socket.socket] | None:
        """Serve until the last user has exited; in a forked process, return its request."""
        woken, wakes = socket.socketpair()
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        used = False
        while self.users or not used:
            ready, _, _ = select.select([self.listener, woken, *self.users], [], [])
            if woken in ready:
                woken.recv(4096)
                self.collect()
            self.users.difference_update(ready)
            if self.listener in ready:
                connection, _ = self.listener.accept()
                asked = self.accept(connection)
                if asked is not None:
                    for other in (woken, wakes, *self.users, *self.running.values()):
                        other.close()
                    return asked, connection
            used = used or bool(self.users)
        for pid in self.running:
            os.kill(pid, signal.SIGKILL)
        return None

    def accept(self, connection: socket.socket) -> dict[str, Any] | None:
        """Take a user or start a process; in that process, what it was asked for."""
        head, descriptors, _, _ = socket.recv_fds(connection, forked.LENGTH.size, 3)
        (length,) = forked.LENGTH.unpack(head)
        if not length:
            self.users.add(connection)
            return None
        asked = json.loads(connection.recv(length, socket.MSG_WAITALL))
        asked["environ"] = self.added | asked["environ"]
        if early(asked["environ"]) != self.environ:
            connection.close()
        else:
            pid = os.fork()
            if not pid:
                return {**asked, "descriptors": descriptors}
            self.running[pid] = connection
        for descriptor in descriptors:
            os.close(descriptor)
        return None

    def collect(self) -> None:
        """Tell of each process that has ended how it did."""
        while self.running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            forked.note(pid, None)
            # Nobody may wait for it any more.
            with self.running.pop(pid) as connection, contextlib.suppress(OSError):
                connection.sendall(forked.LENGTH.pack(status))


def early(environ: Any) -> dict[str, str]:
    """The variables that only a real start can change."""
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(READ_EARLY) and name not in READ_LATE
    }


def forget_others(known: Mapping[str, str]) -> None:
    """Remove the variables from this process that only a real start could take on, but for the known ones."""
    for name in early(os.environ).keys() - known.keys():
        del os.environ[name]


def run_and_exit(asked: dict[str, Any], connection: socket.socket) -> None:
    """Become the process that was asked for."""
    become(asked)
    forked.note(os.getpid(), asked)
    connection.sendall(forked.LENGTH.pack(os.getpid()))
    connection.close()
    code = 0
    try:
        run(asked["words"])
    except SystemExit as ended:
        if isinstance(ended.code, int) or ended.code is None:
            code = ended.code or 0
        else:
            print(ended.code, file=sys.stderr)
            code = 1
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 255)


def become(asked: dict[str, Any]) -> None:
    """Descriptors, session, folder, environment, signals and libraries of the caller's wish."""
    if asked["new_session"]:
        os.setsid()
    for number, descriptor in enumerate(asked["descriptors"]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(asked["folder"])
    before = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    os.environ.clear()
    os.environ.update(asked["environ"])
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        # The loader read this variable long ago, but takes a library of the same name that is loaded already.
        for library in () if folder in before else Path(folder).glob("lib*.so*"):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unbuffered = "-u" in asked["options"] or "PYTHONUNBUFFERED" in os.environ
    sys.stdout.reconfigure(write_through=unbuffered, line_buffering=unbuffered)  # type: ignore[union-attr]


def run(words: list[str]) -> None:
    """Run the words of a command line after ``python``: a module, a script or code."""
    forked.inside()
    for folder in filter(None, os.environ.get("PYTHONPATH", "").split(":")):
        sys.path.insert(0, folder)
        if Path(folder, "sitecustomize.py").exists():
            runpy.run_path(str(Path(folder, "sitecustomize.py")))
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(words[1], sys.modules["__main__"].__dict__)
    elif words[0] == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = words[1:]
        entry = f"{words[1]}.__main__" if words[1] == "mlenergy.diffusion" else words[1]
        sys.modules.pop(entry, None)
        runpy.run_module(entry, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
