"""A new result in the place of an earlier one: written whole beside it, then put there by renaming.

Until the new one is whole the earlier one is not touched, so a disk that fills up costs the new one only.
A run that is killed in the middle of the swap leaves two whole results, and the next one ends the swap.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.atomic import cannot_write, force_to_disk
from mlenergy.diffusion.results.paths import RunPaths

# In the new result's folder: the earlier result on its way out, and then, by a new name, all of it.
_LEAVING, _LEFT = "leaving", "left"


@contextlib.contextmanager
def replaced_result(paths: RunPaths) -> Iterator[RunPaths]:
    """Yield the paths to write a new result to, results.json last; then it takes the earlier one's place.

    The folder's lock has to be held. Log, lock and status stay where they are.

    Raises:
        UserError: the folder cannot be written. The earlier result is untouched.
    """
    new = paths.new
    try:
        _remove(new.folder)
        try:
            # Made now, while there is room on the disk: the swap itself must not need any.
            (new.folder / _LEAVING).mkdir(parents=True)
        except OSError as error:
            raise cannot_write(new.folder, error) from error
        yield new
    except BaseException:
        _remove(new.folder)  # the record of the failure may need the room
        raise
    _swap(paths)


def recover_interrupted_swap(paths: RunPaths) -> None:
    """End the swap in which a run was killed, and remove what one left that had not got so far.

    The folder's lock has to be held.

    Raises:
        UserError: the folder cannot be written.
    """
    if paths.new.results.exists():  # its last file: it is whole
        _swap(paths)
    _remove(paths.new.folder)
    for aside in paths.folder.glob(".writing-*"):
        with contextlib.suppress(OSError):
            aside.unlink()


def _swap(paths: RunPaths) -> None:
    new = paths.new
    leaving, left = new.folder / _LEAVING, new.folder / _LEFT
    try:
        # rename(2) is atomic for one name, not for a set of them. Two renames make the set safe: while `left`
        # is absent, what lies in the folder is the earlier result's and goes to `leaving`; once `leaving` has
        # become `left`, all of it is out, and what lies in the folder is the new result's. A swap that was
        # killed is repeated from either side without mixing the two.
        if not left.exists():
            # results.json first: from then on a reader finds no result, and never a mix of two.
            for file in _files(paths):
                _move(file, leaving)
            leaving.rename(left)
            force_to_disk(new.folder)
        for file in reversed(_files(new)):
            _move(file, paths.folder)
        force_to_disk(paths.folder)
    except OSError as error:
        raise UserError(
            f"the new result is whole in {new.folder}, but cannot be moved to {paths.folder}: "
            f"{error.strerror or error}; fix that, then run again without --overwrite_results"
        ) from error
    _remove(new.folder)


def _files(paths: RunPaths) -> tuple[Path, ...]:
    return (
        paths.results,
        paths.interrupted,
        paths.requests,
        paths.timeline,
        paths.images,
        paths.videos,
        paths.latents,
    )


def _move(file: Path, folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # not every result has it, or it was moved before
        file.rename(folder / file.name)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
