"""The records of everything that a command line names: result folders, folders that hold some, patterns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.find import expand, find_results
from mlenergy.diffusion.results.read import load_result
from mlenergy.diffusion.results.record import STAMP, ResultRecord

_INDEX = "index.parquet"


@dataclass(frozen=True)
class Collection:
    """Complete results, and what is none; each file once, its folder as the command line reaches it."""

    results: list[ResultRecord]
    others: list[ResultRecord]


def collect(words: Sequence[str]) -> Collection:
    """Read everything that the words of a command line name.

    Raises:
        UserError: a word names nothing.
    """
    results: list[ResultRecord] = []
    others: list[ResultRecord] = []
    seen: set[str] = set()
    for path in expand(words):
        # Links are not followed, so that below the root no path needs to be resolved.
        root, length = path.resolve().as_posix(), len(path.as_posix())
        for record in _records(path):
            place = root + (f"/{record.path}" if path.as_posix() == "." else record.path[length:])
            if place not in seen:
                seen.add(place)
                (results if record.state == "complete" else others).append(record)
    return Collection(results, others)


def no_results(words: Sequence[str], others: Sequence[ResultRecord]) -> UserError:
    """The error where the words of a command line name no complete result."""
    named = ", ".join(words)
    if not others:
        return UserError(f"there is no result in {named}; name a folder that has a results.json at any depth")
    first, more = others[0], f", and {len(others) - 1:,} more" if len(others) > 1 else ""
    why = f"{first.path} is {first.state.replace('_', ' ')}: {first.reason}{more}"
    return UserError(f"there is no complete result in {named}: {why}")


def _records(path: Path) -> Iterator[ResultRecord]:
    if not path.is_dir():
        yield load_result(path).record
        return
    known = _indexed(path / _INDEX)
    at = "" if path.as_posix() == "." else path.as_posix()
    for found in find_results(path):
        place = (
            found.folder
            if not at
            else at
            if found.folder == "."
            else f"{at}/{found.folder}".replace("//", "/")
        )
        if found.state is not None:
            yield ResultRecord(folder=place, file="", state=found.state, reason=found.reason)
            continue
        row = known.pop((found.folder, found.file), None)
        if row is not None and found.stamp == tuple(row[name] for name in STAMP):
            yield ResultRecord(**{**row, "folder": place})
        else:
            yield load_result(path / found.folder / found.file, place).record


def _indexed(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of the index that `mlenergy index` left in a folder, by folder and file."""
    if not file.is_file():
        return {}
    from mlenergy.diffusion.results.index import read_index  # pyarrow takes a third of a second

    same: dict[str, str] = {}  # most texts occur many times

    def kept(value: Any) -> Any:
        return same.setdefault(value, value) if isinstance(value, str) else value

    rows = ({name: kept(value) for name, value in row.items()} for row in read_index(file))
    return {(row["folder"], row["file"]): row for row in rows}
