"""Prompts from a file or folder: Parquet, JSONL, JSON, CSV or plain text."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts.pool import CATEGORY_COLUMN, Pool, make_pool, missing_column

Columns = tuple[list[Any], list[Any]]  # prompts and categories, a category None where there is none
SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".txt")


def read_path(path: Path, column: str) -> Pool:
    """Read every prompt of a file, or of all files of a folder in the order of their relative paths.

    Raises:
        UserError: no such path, no or mixed kinds of files in a folder, unreadable or malformed content,
            a missing column, an empty prompt.
    """
    files = _files(path)
    prompts: list[Any] = []
    categories: list[Any] = []
    for file in files:
        more_prompts, more_categories = _read_file(file, column)
        prompts += more_prompts
        categories += more_categories
    provenance = {"source": "file", "dataset": str(path), "column": column, "files": len(files)}
    return make_pool(str(path), prompts, categories, provenance)


def _files(path: Path) -> Sequence[Path]:
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path}: prompts come from {', '.join(SUFFIXES)} files; convert it to one")
        return [path]
    if not path.is_dir():
        raise UserError(f"there is no file or folder {path}; check --workload.dataset")
    found = [p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES]
    files = sorted((p for p in found if not _hidden(p, path)), key=lambda p: p.relative_to(path).as_posix())
    kinds = sorted({p.suffix.lower() for p in files})
    if not kinds:
        raise UserError(f"the folder {path} has no {', '.join(SUFFIXES)} file; check --workload.dataset")
    if len(kinds) > 1:
        raise UserError(f"the folder {path} mixes {' and '.join(kinds)} files; name the one file to read")
    return files


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _read_file(file: Path, column: str) -> Columns:
    try:
        return _READERS[file.suffix.lower()](file, column)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:  # JSON, UTF-8 and Arrow errors are ValueErrors
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is not a well-formed {file.suffix[1:]} file: {reason}") from error


def _read_parquet(file: Path, column: str) -> Columns:
    """Only the chunks of the wanted columns are read from disk, however large the others are."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        names = parquet.schema_arrow.names
        if column not in names:
            raise missing_column(str(file), column, names)
        wanted = [name for name in dict.fromkeys((column, CATEGORY_COLUMN)) if name in names]
        table = parquet.read(columns=wanted)
    prompts = table[column].to_pylist()
    return prompts, table[CATEGORY_COLUMN].to_pylist() if CATEGORY_COLUMN in wanted else [None] * len(prompts)


def _read_jsonl(file: Path, column: str) -> Columns:
    lines = file.read_text(encoding="utf-8-sig").split("\n")
    return _from_records(file, column, [json.loads(line) for line in lines if line.strip()])


def _read_json(file: Path, column: str) -> Columns:
    records = json.loads(file.read_text(encoding="utf-8-sig"))
    if not isinstance(records, list):
        raise UserError(
            f"{file} holds a {type(records).__name__}; it has to be a list of prompts or of objects"
        )
    return _from_records(file, column, records)


def _from_records(file: Path, column: str, records: list[Any]) -> Columns:
    """A record is an object, or a prompt on its own."""
    for record in records:
        if isinstance(record, dict) and column not in record:
            raise missing_column(str(file), column, record)
    prompts = [r[column] if isinstance(r, dict) else r for r in records]
    return prompts, [r.get(CATEGORY_COLUMN) if isinstance(r, dict) else None for r in records]


def _read_csv(file: Path, column: str) -> Columns:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        names = reader.fieldnames
        if names is None:
            return [], []
        if column not in names:
            raise missing_column(str(file), column, names)
        rows = list(reader)
    return [row[column] for row in rows], [row.get(CATEGORY_COLUMN) for row in rows]


def _read_text(file: Path, column: str) -> Columns:
    """A line is a prompt; blank lines separate and are no prompts. There are no columns to choose."""
    prompts = [line.strip() for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    return list(prompts), [None] * len(prompts)


_READERS: dict[str, Callable[[Path, str], Columns]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".txt": _read_text,
}
