"""The user's terminal, kept apart from the libraries' output, which goes to a file."""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mlenergy.diffusion.results.atomic import cannot_write


@dataclass(frozen=True)
class Terminal:
    """The user's stdout and stderr, whatever the libraries' have become."""

    out: TextIO
    err: TextIO


@contextmanager
def redirect_output(path: Path, *, debug: bool) -> Iterator[Terminal]:
    """Send this process's stdout and stderr to a file, and hand out the real ones.

    It works on file descriptors, since gloo and NCCL write from C++. An exception's traceback goes to
    the file, and the exception gets a note that says so. With `debug` nothing is moved.
    """
    if debug:
        yield Terminal(sys.stdout, sys.stderr)
        return
    with _moved(path) as terminal:
        _send_python_logs_to_stderr()
        _make_bars_plain()
        try:
            yield terminal
        except BaseException as error:
            traceback.print_exc()
            error.add_note(f"the traceback is in {path}")
            raise


def spare_log_path(rank: int) -> Path:
    """The log of a rank other than 0, outside of the result folder, which rank 0 alone writes to."""
    return Path(tempfile.gettempdir()) / f"mlenergy-{os.getpid()}-rank{rank}.log"


@contextmanager
def _moved(path: Path) -> Iterator[Terminal]:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    except OSError as error:
        raise cannot_write(path, error) from error
    kept = (os.dup(1), os.dup(2))
    streams = (sys.stdout, sys.stderr)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    # A rank other than 0 has had its stdout replaced by nothing; that stays so.
    is_output_rank = sys.stdout is sys.__stdout__
    out = _best_effort(kept[0], sys.stdout.encoding) if is_output_rank else sys.stdout
    err = _best_effort(kept[1], sys.stderr.encoding)
    try:
        sys.stdout, sys.stderr = _best_effort(1) if is_output_rank else sys.stdout, _best_effort(2)
        yield Terminal(out, err)
    finally:
        for stream in (sys.stdout, sys.stderr, out, err):
            stream.flush()
        sys.stdout, sys.stderr = streams
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


class _BestEffortFile(io.FileIO):
    """A log on a full disk, or a pipe that its reader has closed, costs its words and not the run."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _best_effort(descriptor: int, encoding: str = "utf-8") -> TextIO:
    raw = _BestEffortFile(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=True
    )


def _send_python_logs_to_stderr() -> None:
    line = "%(asctime)s %(name)s %(levelname)s %(message)s"
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=line, force=True)
    logging.captureWarnings(True)
    # Their warnings come at every call ("your prompt was truncated"), and so inside of measured windows.
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _make_bars_plain() -> None:
    """Keep cursor movements, and a line for each change, out of the log."""
    # tqdm reads its defaults from these as it is imported.
    os.environ.setdefault("TQDM_POSITION", "0")
    os.environ.setdefault("TQDM_MININTERVAL", "5")
