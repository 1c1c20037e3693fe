"""Files that are whole or not there: written aside, forced to disk, renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError


def write_json(path: Path, content: Any, option: str = "--workload.base_dir") -> None:
    """Write JSON so that a reader meets the old file or the new one.

    All text is escaped to ASCII, so that no prompt is lost or acts on a terminal.

    option: that chooses the place, for the error's line.

    Raises:
        ValueError: a number is NaN or infinite, with its place.
        UserError: the file cannot be written.
    """
    wrong = _not_finite(content, path.name)
    if wrong is not None:
        raise ValueError(f"{wrong}; not written")
    text = json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False)
    with written_aside(path, option) as aside:
        aside.write_text(text + "\n", encoding="ascii")


@contextlib.contextmanager
def written_aside(path: Path, option: str = "--workload.base_dir") -> Iterator[Path]:
    """Yield a name in the same folder to write to; on success force it to disk and rename it to `path`.

    option: that chooses the place, for the error's line.

    Raises:
        UserError: the folder or file cannot be written; what was written aside is removed.
    """
    # The thread too: the watch over a run writes while the main thread may be stuck in its own write.
    aside = path.with_name(f".writing-{os.getpid()}-{threading.get_native_id()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        # Content before name: after a power cut a journalling file system may know the rename and not
        # the data (rename(2) orders nothing), which would leave an empty file under the good name.
        force_to_disk(aside)
        aside.replace(path)
        force_to_disk(path.parent)
    except OSError as error:
        raise cannot_write(path, error, option) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def force_to_disk(path: Path) -> None:
    """Let a file's content, or a folder's names, survive a power cut.

    Raises:
        OSError: the file system cannot.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path, error: OSError, option: str = "--workload.base_dir") -> UserError:
    """A file error while writing results, as one line that says what to do."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(f"cannot write {path}: {reason}; free space, or choose another {option}")
    return UserError(f"cannot write {path}: {reason}; choose a {option} that you can write to")


def _not_finite(value: Any, where: str) -> str | None:
    """The place of the first number that JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} is {value}"
    if isinstance(value, Mapping):
        inner = (_not_finite(v, f"{where}.{k}") for k, v in value.items())
    elif isinstance(value, (list, tuple)):
        inner = (_not_finite(v, f"{where}[{i}]") for i, v in enumerate(value))
    else:
        return None
    return next((found for found in inner if found is not None), None)
