"""Remains of an earlier run that a new one does not go on from: renamed, never deleted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from mlenergy.diffusion.results.atomic import cannot_write
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import broken

_NO_RESULT = "results_broken.json"  # so that no reader of a whole tree counts it beside the new one
_LONGEST = 240  # bytes; most file systems take 255


def keep_interrupted(paths: RunPaths) -> Path | None:
    """Rename the measurements of an interrupted run, since two processes' windows make no one result.

    The folder's lock has to be held.

    Returns:
        The new name, None where there were none.

    Raises:
        UserError: the folder cannot be written.
    """
    if not paths.interrupted.exists():
        return None
    stem = paths.interrupted.stem
    name = _free(paths.folder / f"{stem}-{n}.json" for n in itertools.count(1))
    try:
        paths.interrupted.rename(name)
    except OSError as error:
        raise cannot_write(name, error) from error
    return name


def keep_broken(paths: RunPaths) -> tuple[str, Path] | None:
    """Move a result that is not whole into a folder beside it, NAME.broken-1 or the next number.

    Its results.json is results_broken.json there.

    The folder's lock has to be held.

    Returns:
        What is wrong with it, and the new folder; None where there is no such result.

    Raises:
        UserError: the folder cannot be written, or the result is of a newer version.
    """
    why = broken(paths)
    if why is None:
        return None
    # A folder's name may be as long as the file system allows.
    stem = paths.folder.name.encode()[:_LONGEST].decode(errors="ignore")
    folder = _free(paths.folder.with_name(f"{stem}.broken-{n}") for n in itertools.count(1))
    try:
        folder.mkdir()
        for file in sorted(paths.folder.iterdir()):
            if not file.name.startswith("."):  # the lock stays, which this run holds
                file.rename(folder / (_NO_RESULT if file == paths.results else file.name))
    except OSError as error:
        raise cannot_write(folder, error) from error
    return why, folder


def _free(names: Iterator[Path]) -> Path:
    return next(name for name in names if not name.exists())
