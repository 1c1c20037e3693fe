"""Runs of this program that use a GPU at the same time: each has a file in a folder of the whole machine.

A run locks its file as long as it lives, so that one that was killed is told from one that runs. A run that
begins reads who is there and leaves its own name in their files: both learn of the other, whichever ends
first.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

RUNTIME_DIR = "MLENERGY_RUNTIME_DIR"  # environment variable; default: the machine's shared memory
_SHARED = Path("/dev/shm")
_LONGEST = 4096  # bytes of one run's line


class GpuUsers:
    """Other runs on the GPUs of this process, as far as they are known by now.

    Args:
        own: paths of this run's files, one a GPU.
        found: lines of the runs that were there at the beginning, by GPU UUID.
    """

    def __init__(self, own: dict[str, Path], found: dict[str, list[str]]) -> None:
        self._own = own
        self._found = found

    def others(self) -> list[str]:
        """A line for each other run that has used one of the GPUs since the beginning."""
        lines = []
        for gpu, file in self._own.items():
            with contextlib.suppress(OSError):
                came_later = file.read_text(errors="replace").splitlines()[1:]
                self._found[gpu] += [line for line in came_later if line not in self._found[gpu]]
        for gpu, users in self._found.items():
            lines += [f"{_words(user)} used {gpu} at the same time" for user in users]
        return lines


@contextlib.contextmanager
def gpu_users(gpus: Sequence[str], label: str) -> Iterator[GpuUsers]:
    """Be known as a user of these GPUs, and learn of the others, as long as the body runs.

    Args:
        gpus: UUIDs.
        label: for the others' users: what this run is.
    """
    own: dict[str, Path] = {}
    found: dict[str, list[str]] = {}
    with contextlib.ExitStack() as stack:
        for gpu in gpus:
            with contextlib.suppress(OSError):  # no folder to write to: nobody is told, and the run goes on
                line = _line(label)
                own[gpu] = stack.enter_context(_known_file(gpu, line))
                found[gpu] = _meet(own[gpu], line)
        yield GpuUsers(own, found)


def _folder(gpu: str) -> Path:
    shared = _SHARED if _SHARED.is_dir() else Path(tempfile.gettempdir())
    folder = Path(os.environ.get(RUNTIME_DIR) or shared / "mlenergy-gpus") / gpu
    for one in (folder.parent, folder):
        try:
            one.mkdir(parents=True)
        except FileExistsError:
            continue
        one.chmod(0o1777)  # for every user of the machine; each may remove only own files
    return folder


def _line(label: str) -> str:
    who = {"pid": os.getpid(), "host": socket.gethostname(), "label": label, "began_s": time.time()}
    return json.dumps(who)[:_LONGEST]


@contextlib.contextmanager
def _known_file(gpu: str, line: str) -> Iterator[Path]:
    """The file of this run, locked before others can see it."""
    folder = _folder(gpu)
    file = folder / f"{uuid.uuid4().hex}.run"
    hidden = file.with_suffix(".new")
    handle = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        os.fchmod(handle, 0o666)  # others add their lines
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, f"{line}\n".encode())
        hidden.rename(file)
        yield file
    finally:
        for one in (hidden, file):
            with contextlib.suppress(OSError):
                one.unlink()
        os.close(handle)


def _meet(own: Path, line: str) -> list[str]:
    """Lines of the runs that are there; each gets this run's. Files of dead runs are removed."""
    found = []
    for file in own.parent.glob("*.run"):
        if file == own:
            continue
        with contextlib.suppress(OSError):
            handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if _is_locked(handle):
                    os.write(handle, f"{line}\n".encode())
                    found.append(os.pread(handle, _LONGEST, 0).decode(errors="replace").splitlines()[0])
                else:
                    file.unlink()
            finally:
                os.close(handle)
    return found


def _is_locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _words(line: str) -> str:
    try:
        user = json.loads(line)
        who = f"process {int(user['pid'])} on {str(user['host'])[:80]}: {str(user['label'])[:200]}"
        return f"another run ({who})"
    except (ValueError, KeyError, TypeError):
        return "another run"
