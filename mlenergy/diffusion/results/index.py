"""A Parquet table of all results below a folder, kept up to date by reading only what has changed.

One row a file (`ResultRecord`). Rows pass through memory in groups, so that a hundred thousand results
take no more of it than their paths.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.atomic import written_aside
from mlenergy.diffusion.results.find import Found, Stamp, find_results, require_folder
from mlenergy.diffusion.results.read import load_found
from mlenergy.diffusion.results.record import STAMP, ResultRecord

NAME = "index.parquet"
_GROUP = 8192  # rows that are held at a time
_MARK, _FORMAT = b"mlenergy_index", b"1"  # another number where a column changes its meaning
# A file that changes twice within a tick of the file system's clock keeps its stamp, so what is as young as
# this is read again the next time.
_YOUNG_NS = 2_000_000_000
_KINDS = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_STAMPED = ("folder", "file", *STAMP, "state", "reason")

_Waiting = dict[tuple[str, str], Found]


@dataclass
class Refreshed:
    """Findings of a refresh of an index."""

    file: Path
    states: Counter[str] = field(default_factory=Counter)  # rows by state
    new: int = 0  # files that the index did not know
    read_again: int = 0  # files that may have changed
    removed: int = 0  # files that are no longer there
    unusable: list[tuple[str, str, str]] = field(default_factory=list)  # state, path, reason


def refresh(
    root: Path, out: Path | None = None, progress: Callable[[int, int], None] = lambda done, all_: None
) -> Refreshed:
    """Bring the index of a folder up to date, or make it.

    Args:
        root: the folder.
        out: the table; by default `index.parquet` in the folder.
        progress: called now and then with the number of files read, and of those to read.

    Raises:
        UserError: there is no such folder, or the table cannot be written, or is not one of this program.
    """
    require_folder(root)
    done = Refreshed(out or root / NAME)
    now_ns = time.time_ns()
    waiting: _Waiting = {(one.folder, one.file): one for one in find_results(root)}
    known = open_index(done.file)
    kept = _kept(known, waiting, done)
    if known is not None and not waiting and not done.removed:
        return done
    try:
        with written_aside(done.file) as aside, pq.ParquetWriter(aside, schema(), compression="zstd") as file:
            groups = _Groups(file)
            for table in _filtered(known, kept):
                groups.add(table)
            for table in _read(root, waiting, done, now_ns, progress):
                groups.add(table)
            groups.flush()
    except UserError as error:
        raise UserError(f"{str(error).rpartition(';')[0]}; choose another file with --out") from error
    return done


def open_index(file: Path) -> Any:
    """The Parquet file of an index, None where it is absent or of another version of this program.

    Raises:
        UserError: the file is something else.
    """
    if not file.exists():
        return None
    try:
        found = pq.ParquetFile(file)
    except (OSError, pa.ArrowException):
        found = None
    if found is None or _MARK not in (found.schema_arrow.metadata or {}):
        raise UserError(f"{file} is not an index of this program; remove it, or choose another with --out")
    return found if found.schema_arrow.equals(schema(), check_metadata=True) else None


def read_index(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of an index; none of a file that is no index of this version."""
    try:
        known = open_index(file)
    except UserError:
        known = None
    for batch in known.iter_batches(_GROUP) if known is not None else ():
        columns = batch.to_pydict()
        for row in zip(*columns.values(), strict=True):
            yield dict(zip(columns, row, strict=True))


def schema() -> Any:
    """Columns of the table: the fields of `ResultRecord`."""
    hints = get_type_hints(ResultRecord)
    kinds = {name: next(iter(get_args(hint)), hint) for name, hint in hints.items()}
    columns = [pa.field(one.name, _KINDS.get(kinds[one.name], pa.string())) for one in fields(ResultRecord)]
    return pa.schema(columns, metadata={_MARK: _FORMAT})


class _Groups:
    """Row groups of a good size, whatever the sizes of the tables that come."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._tables: list[Any] = []

    def add(self, table: Any) -> None:
        self._tables.append(table)
        if sum(one.num_rows for one in self._tables) >= _GROUP:
            self.flush()

    def flush(self) -> None:
        if self._tables:
            self._file.write_table(pa.concat_tables(self._tables))
        self._tables = []


def _kept(known: Any, waiting: _Waiting, done: Refreshed) -> list[bool]:
    """For each row True where its file is as it was; these files no longer wait to be read."""
    kept = []
    for batch in known.iter_batches(_GROUP, columns=list(_STAMPED)) if known is not None else ():
        columns = batch.to_pydict()
        for row in zip(*(columns[name] for name in _STAMPED), strict=True):
            folder, file, *stamp, state, reason = row
            found = waiting.get((folder, file))
            is_same = found is not None and _is_same(found, stamp, state, reason)
            kept.append(is_same)
            if is_same:
                del waiting[folder, file]
                _count(done, folder, file, state, reason)
            done.read_again += found is not None and not is_same
            done.removed += found is None
    done.new = len(waiting) - done.read_again
    return kept


def _is_same(found: Found, stamp: Sequence[int], state: str, reason: str | None) -> bool:
    if found.state is not None:
        return (found.state, found.reason) == (state, reason)
    return found.stamp is not None and found.stamp == Stamp(*stamp)


def _filtered(known: Any, kept: Sequence[bool]) -> Iterator[Any]:
    mask = iter(kept)
    for batch in known.iter_batches(_GROUP) if known is not None else ():
        of_batch = pa.array(islice(mask, batch.num_rows), pa.bool_())
        yield pa.Table.from_batches([batch]).filter(of_batch)


def _read(
    root: Path, waiting: _Waiting, done: Refreshed, now_ns: int, progress: Callable[[int, int], None]
) -> Iterator[Any]:
    rows: list[dict[str, Any]] = []
    for number, found in enumerate(waiting.values()):
        record = _record(root, found, now_ns)
        _count(done, record.folder, record.file, record.state, record.reason)
        rows.append(asdict(record))
        if len(rows) == _GROUP:
            yield pa.Table.from_pylist(rows, schema=schema())
            rows = []
        if number % 100 == 0:
            progress(number, len(waiting))
    yield pa.Table.from_pylist(rows, schema=schema())


def _record(root: Path, found: Found, now_ns: int) -> ResultRecord:
    record = load_found(root, found).record
    is_young = max(record.source_mtime_ns or 0, record.source_ctime_ns or 0) > now_ns - _YOUNG_NS
    return replace(record, source_ctime_ns=None) if is_young else record


def _count(done: Refreshed, folder: str, file: str, state: str, reason: str | None) -> None:
    done.states[state] += 1
    if state != "complete":
        done.unusable.append((state, f"{folder}/{file}" if file else folder, reason or ""))
