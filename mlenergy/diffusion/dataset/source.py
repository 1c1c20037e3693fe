"""Where images and captions come from: a folder here; tables are in tables.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlenergy.diffusion.errors import UserError

METADATA = "metadata.jsonl"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Row:
    """One row: its place in the source, its picture (bytes or a file), its other columns."""

    index: int
    image: bytes | Path | None
    values: Mapping[str, Any]
    name: str | None = None  # of its file, where it has one


class Source(Protocol):
    """Rows by number."""

    name: str
    columns: Sequence[str]
    labels: Mapping[str, Sequence[str]]  # names of classes, by column that holds their numbers

    def provenance(self) -> dict[str, Any]:
        """Facts that say which rows these are, for dataset.json."""
        ...

    def count(self) -> int:
        """Number of rows."""
        ...

    def rows(self, wanted: set[int]) -> Iterator[Row]:
        """The wanted rows, in the order of the source."""
        ...


class FolderSource:
    """A folder of images, with metadata.jsonl or a .txt file beside each.

    Raises:
        UserError: no images, no captions, or a metadata.jsonl that is not well formed.
    """

    labels: Mapping[str, Sequence[str]] = {}

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder
        self._from_metadata = (folder / METADATA).is_file()
        self._files: list[Path] = []
        if self._from_metadata:
            self._count, self.columns = self._look_at_metadata()
        else:
            self._files, self.columns = _pictures_with_texts(folder), ("text",)
            self._count = len(self._files)

    def provenance(self) -> dict[str, Any]:
        """Kind and place."""
        captions = METADATA if self._from_metadata else "a .txt file beside each image"
        return {"kind": "folder", "path": str(self._folder.resolve()), "captions": captions}

    def count(self) -> int:
        """Number of images with captions."""
        return self._count

    def rows(self, wanted: set[int]) -> Iterator[Row]:
        """The wanted images, in the order of metadata.jsonl or of their names."""
        if self._from_metadata:
            for index, record in enumerate(self._records()):
                if index in wanted:
                    name = record["file_name"]
                    yield Row(index, self._folder / name, record, name)
            return
        for index, file in enumerate(self._files):
            if index in wanted:
                values = {"text": file.with_suffix(".txt").read_text(encoding="utf-8-sig", errors="replace")}
                yield Row(index, file, values, file.relative_to(self._folder).as_posix())

    def _look_at_metadata(self) -> tuple[int, Sequence[str]]:
        count, columns = 0, None
        for record in self._records():
            count += 1
            # A column counts where every row has it.
            columns = list(record) if columns is None else [name for name in columns if name in record]
        if columns is None:
            raise UserError(f"{self._folder / METADATA} has no rows; name a folder with images")
        return count, columns

    def _records(self) -> Iterator[dict[str, Any]]:
        file = self._folder / METADATA
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise UserError(f"{file}, line {number} is not JSON ({error}); correct it") from None
                if not isinstance(record, dict) or not isinstance(record.get("file_name"), str):
                    raise UserError(f"{file}, line {number} has no file_name; give each image a line")
                yield record


def _pictures_with_texts(folder: Path) -> list[Path]:
    found = [file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
    hidden = [f for f in found if any(part.startswith(".") for part in f.relative_to(folder).parts)]
    files = sorted(set(found) - set(hidden), key=lambda file: file.relative_to(folder).as_posix())
    if not files:
        raise UserError(
            f"{folder} has no images ({', '.join(SUFFIXES)}) and no Parquet files; name a folder with some"
        )
    without = [file for file in files if not file.with_suffix(".txt").is_file()]
    if without:
        names = ", ".join(file.relative_to(folder).as_posix() for file in without[:3])
        raise UserError(
            f"{len(without)} of the {len(files)} images of {folder} have no caption: {names}; put a .txt "
            f"file beside each, or a {METADATA} with file_name and text"
        )
    return files
