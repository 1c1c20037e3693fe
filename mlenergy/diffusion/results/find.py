"""The files of results below a folder, each folder visited once; nothing is read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.record import State

RESULT, INTERRUPTED, STATUS = "results.json", "results_interrupted.json", "status.json"
_NOT_ENTERED = (
    "image_outputs",
    "video_outputs",
    "latent_outputs",
)  # nor what begins with a dot: a result that is being written lies in .new


class Stamp(NamedTuple):
    """State of a file; a file that is changed or replaced gets another one."""

    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a run, or a folder that could not be looked into."""

    folder: str  # relative to where the search began, with `/`; `.` is that folder itself
    file: str  # empty: the folder itself
    stamp: Stamp | None
    state: State | None = None  # of a folder: why it was not entered
    reason: str | None = None


def find_results(root: Path) -> Iterator[Found]:
    """Every results.json and results_interrupted.json below a folder, and each status.json without them.

    Links to folders are named and not followed. Order is that of the names, with a folder's links first.
    """
    base, waiting = (
        str(root),
        ["."],
    )  # texts: a Path for each of many folders takes longer than looking into it
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(f"{base}/{folder}") as entries:
                inner, files = [], {}
                for entry in entries:
                    name = entry.name
                    if name in (RESULT, INTERRUPTED, STATUS):
                        files[name] = entry
                    elif not name.startswith(".") and name not in _NOT_ENTERED and entry.is_dir():
                        inner.append((name, entry.is_symlink()))
        except OSError as error:
            yield Found(folder, "", None, "unreadable", f"cannot be read: {error.strerror or error}")
            continue
        yield from _files(folder, files)
        inner.sort(reverse=True)  # the last one is taken first
        for name, is_link in inner:
            place = name if folder == "." else f"{folder}/{name}"
            if is_link:
                yield Found(place, "", None, "not_followed", "a link to a folder: name it to read it")
            else:
                waiting.append(place)


def require_folder(root: Path) -> None:
    """Refuse what is no folder to look for results in.

    Raises:
        UserError: it is not there, or is a file.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; name one that holds results")


def expand(texts: Sequence[str]) -> list[Path]:
    """The files and folders that the words of a command line name, in order; patterns may match several.

    Raises:
        UserError: a word names nothing.
    """
    found: list[Path] = []
    for text in texts:
        if Path(text).exists():
            found.append(Path(text))
            continue
        matches = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []  # noqa: PTH207 - may be absolute
        if not matches:
            raise UserError(f"there is no {text!r}; name a result folder, one that holds some, or a pattern")
        found += map(Path, matches)
    return list(dict.fromkeys(found))


def _files(folder: str, files: dict[str, os.DirEntry[str]]) -> Iterator[Found]:
    for name in (RESULT, INTERRUPTED, STATUS):
        if name not in files or (name == STATUS and len(files) > 1):
            continue
        try:
            stat = files[name].stat()
            stamp = Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        except OSError:  # gone since, or a link to nothing: reading it says so
            stamp = None
        yield Found(folder, name, stamp)
