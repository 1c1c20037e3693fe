"""One writer a result folder: a lock that ends with its process, and a folder that can be written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.atomic import cannot_write

_BUSY = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_FLOCK = "hhqqi4x"  # struct flock of Linux: type, whence, start, length, process (fcntl(2), F_GETLK)
_held_here: dict[str, int] = {}  # lock file -> its open handle


@contextlib.contextmanager
def result_lock(lock_file: Path, option: str = "--workload.base_dir") -> Iterator[None]:
    """Make the folder and hold its lock; nobody else writes there meanwhile.

    The lock ends with the process however that ends: what a dead run left behind is taken over.

    option: that chooses the folder, for the errors' lines.

    Raises:
        UserError: another run holds it (which, on which host), the folder cannot be made or written, or the
            file system cannot lock.
    """
    handle = _acquire(lock_file, option)
    key = str(lock_file.resolve())
    _held_here[key] = handle
    try:
        yield
    finally:
        del _held_here[key]
        # Removed while still held, so that a process with the old file open sees that it no longer exists.
        with contextlib.suppress(OSError):
            lock_file.unlink()
        with contextlib.suppress(OSError):  # a lost file system
            os.close(handle)


def holder_of(lock_file: Path) -> str | None:
    """Process and host that hold a folder's lock now; None where nobody does, or none can be asked for."""
    if str(lock_file.resolve()) in _held_here:
        return f"process {os.getpid()} on {socket.gethostname()}"
    try:
        handle = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _holder(handle) if _is_held(handle) else None
    finally:
        os.close(handle)


def check_held(lock_file: Path) -> None:
    """Make sure that the folder is still the one whose lock this process took.

    Raises:
        UserError: it has been removed, moved or unmounted since, or another one is in its place.
    """
    try:
        is_held = _is_same_file(lock_file, _held_here[str(lock_file.resolve())])
    except (OSError, KeyError):
        is_held = False
    if not is_held:
        raise UserError(
            f"{lock_file.parent} no longer exists (it was removed, moved or unmounted during the run), "
            "and nothing is written in its place; bring it back or choose another "
            "--workload.base_dir, then run again"
        )


def _acquire(lock_file: Path, option: str) -> int:
    # A record lock does not exclude its own process, hence the dictionary.
    if str(lock_file.resolve()) in _held_here:
        raise UserError(_busy_line(lock_file, f"process {os.getpid()} on {socket.gethostname()}", option))
    while True:
        handle = _open(lock_file, option)
        try:
            _lock(lock_file, handle, option)
            # The lock is on the inode: the name may be another file's by now, which a third run may lock.
            if _is_same_file(lock_file, handle):
                _sign(lock_file, handle, option)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder removed it between our open and our lock: try the new file


def _is_held(handle: int) -> bool:
    """True where another process has the lock; on Linux it is not taken to find out."""
    try:
        if sys.platform == "linux":
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_ = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
            return bool(kind != fcntl.F_UNLCK)
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _BUSY
    return False


def _open(lock_file: Path, option: str) -> int:
    folder = lock_file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise cannot_write(folder, error, option) from error


def _lock(lock_file: Path, handle: int, option: str) -> None:
    try:
        # A POSIX record lock (fcntl(2), F_SETLK), since the kernel drops it with the process, forked children
        # do not inherit it, and it works between hosts of a network file system. Its weakness: closing *any*
        # descriptor of the file drops it, so nothing else in the program opens the lock file.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise UserError(_busy_line(lock_file, _holder(handle), option)) from None
        if error.errno in _NO_LOCKS:
            raise UserError(
                f"the file system of {lock_file.parent} cannot lock files ({error.strerror}); "
                f"choose a {option} on another one"
            ) from error
        raise


def _is_same_file(lock_file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(lock_file.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _sign(lock_file: Path, handle: int, option: str) -> None:
    """Write who holds the lock, for the message that others get."""
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
    except OSError as error:
        raise cannot_write(lock_file.parent, error, option) from error


def _holder(handle: int) -> str:
    try:
        content = json.loads(os.pread(handle, 4096, 0))
        return f"process {content['pid']} on {content['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _busy_line(lock_file: Path, holder: str, option: str) -> str:
    return f"{lock_file.parent} is being written by {holder}; wait for it, or choose another {option}"
