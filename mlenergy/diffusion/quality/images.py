"""Images that a metric reads, of a run, a folder or Parquet files; their bytes are read when asked for."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    Pixels = np.ndarray[Any, np.dtype[np.uint8]]

METADATA = "metadata.jsonl"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
IMAGE_COLUMN, TEXT_COLUMN = "image", "text"
_NAME_COLUMN = "file_name"
_ROWS = 16  # of a Parquet file that are in memory at a time


@dataclass(frozen=True)
class SavedImage:
    """An image as it is stored, told from every other by the digest of its bytes."""

    name: str  # as messages name it
    sha256: str
    text: str | None = None  # its prompt or caption


@dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order.

    `contents` yields the bytes of the images at the given places, which have to ascend.
    """

    place: str  # folder or file, as it was given
    kind: str  # run, folder or parquet
    images: Sequence[SavedImage]
    contents: Callable[[Sequence[int]], Iterator[bytes]]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sha256(self) -> str:
        """Digest of the images, whatever their order and names."""
        text = "\n".join(sorted(image.sha256 for image in self.images))
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def pixels(self, indices: Sequence[int]) -> Iterator[Pixels]:
        """Images as uint8, (height, width, 3).

        Raises:
            UserError: one cannot be read, is no image, or is no longer the one whose digest was taken.
        """
        for index, content in zip(indices, self.contents(indices), strict=True):
            image = self.images[index]
            if hashlib.sha256(content).hexdigest() != image.sha256:
                raise UserError(f"{image.name} has changed while it was being read; start again")
            yield decoded(content, image.name)


def decoded(content: bytes, name: str) -> Pixels:
    """An image file's bytes as uint8, (height, width, 3).

    Raises:
        UserError: they are no image.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{name} is not an image that can be read ({reason}); replace it or take it out"
        ) from None


def files_as_images(
    place: str, kind: str, files: Sequence[tuple[Path, str | None]], digests: Sequence[str] | None = None
) -> ImageSet:
    """Image files, each with its text.

    Args:
        place: where they lie, for messages and the result.
        kind: run or folder.
        files: in order, each with its prompt or caption.
        digests: SHA-256 of each file's bytes, where they are known.

    Raises:
        UserError: a file cannot be read.
    """
    known = digests or [hashlib.sha256(_read(file)).hexdigest() for file, _ in files]
    images = [SavedImage(str(file), digest, text) for (file, text), digest in zip(files, known, strict=True)]
    return ImageSet(place, kind, images, lambda indices: (_read(files[index][0]) for index in indices))


def read_images(path: Path, *, image_column: str = IMAGE_COLUMN, text_column: str = TEXT_COLUMN) -> ImageSet:
    """The images of a folder or of Parquet files.

    A folder with a metadata.jsonl has the images that this file names (`file_name`), each with its text.
    Any other folder has the images that lie in it at any depth, or the rows of its Parquet files.

    Args:
        path: a folder, a metadata.jsonl, or a Parquet file.
        image_column: of Parquet files: bytes, or a record with `bytes`, as the hub's datasets have it.
        text_column: of Parquet files and metadata.jsonl.

    Raises:
        UserError: there is no such path, no image in it, or one that is named is missing or cannot be read.
    """
    if not path.exists():
        raise UserError(
            f"--reference {path}: there is no such file or folder; give a folder of images, a Parquet "
            "file, or a finished run (a dataset of the hub has to be saved as a folder first)"
        )
    if path.name == METADATA:
        path = path.parent
    if path.suffix.lower() == ".parquet":
        return _of_parquet(path, [path], image_column, text_column)
    if path.is_file():
        raise UserError(f"--reference {path}: give a folder of images, a {METADATA}, a Parquet file or a run")
    if (path / METADATA).is_file():
        return files_as_images(str(path), "folder", _named(path / METADATA, text_column))
    visible = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p, path))
    files = [p for p in visible if p.suffix.lower() in IMAGE_SUFFIXES]
    tables = [p for p in visible if p.suffix.lower() == ".parquet"]
    if files and tables:
        raise UserError(f"--reference {path}: it holds images and Parquet files; name the one to read")
    if tables:
        return _of_parquet(path, tables, image_column, text_column)
    if not files:
        raise UserError(f"--reference {path}: the folder holds no images; give one with images")
    return files_as_images(str(path), "folder", [(file, None) for file in files])


def _named(file: Path, text_column: str) -> list[tuple[Path, str | None]]:
    """The images that a metadata.jsonl names."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
        rows = [(number, json.loads(line)) for number, line in enumerate(lines, 1) if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON lines ({error}); write it again") from None
    if not rows:
        raise UserError(f"{file} names no images; give a folder with images")
    found: list[tuple[Path, str | None]] = []
    for number, row in rows:
        name = row.get(_NAME_COLUMN) if isinstance(row, dict) else None
        if not isinstance(name, str):
            raise UserError(f"{file}, line {number} has no {_NAME_COLUMN}; each line names an image by it")
        image = file.parent / name
        if not image.is_file():
            raise UserError(
                f"{file}, line {number} names {name}, which is not there; add it or the line goes"
            )
        text = row.get(text_column)
        found.append((image, text if isinstance(text, str) and text.strip() else None))
    return found


def _of_parquet(path: Path, files: Sequence[Path], image_column: str, text_column: str) -> ImageSet:
    places: list[tuple[Path, int]] = []
    images: list[SavedImage] = []
    for file in files:
        for row, content, text in _rows(file, image_column, text_column):
            name = f"{file}, row {row + 1}"
            if content is None:
                raise UserError(
                    f"{name} has no image in column {image_column!r}; name another by --image_column"
                )
            images.append(SavedImage(name, hashlib.sha256(content).hexdigest(), text))
            places.append((file, row))
    if not images:
        raise UserError(f"--reference {path}: it holds no rows; give a Parquet file with images")

    def contents(indices: Sequence[int]) -> Iterator[bytes]:
        for file in files:
            rows = [places[index][1] for index in indices if places[index][0] == file]
            yield from _contents(file, image_column, rows)

    return ImageSet(str(path), "parquet", images, contents)


def _contents(file: Path, image_column: str, wanted: Sequence[int]) -> Iterator[bytes]:
    """Images of some rows, which ascend; what follows the last of them is not read."""
    left = set(wanted)
    for row, content, _ in _rows(file, image_column, None) if left else ():
        if row in left:
            left.remove(row)
            yield content or b""
        if not left:
            return


def _rows(
    file: Path, image_column: str, text_column: str | None
) -> Iterator[tuple[int, bytes | None, str | None]]:
    """Row, image and text, a few rows at a time."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            if image_column not in names:
                known = ", ".join(sorted(names))
                raise UserError(
                    f"{file} has no column {image_column!r}; set --image_column to one of: {known}"
                )
            columns = [image_column, *([text_column] if text_column in names else [])]
            row = 0
            for batch in parquet.iter_batches(batch_size=_ROWS, columns=columns):
                for record in batch.to_pylist():
                    value = record[image_column]
                    content = value.get("bytes") if isinstance(value, dict) else value
                    text = record.get(text_column) if text_column else None
                    is_text = isinstance(text, str) and text.strip()
                    yield row, content if isinstance(content, bytes) else None, text if is_text else None
                    row += 1
    except (OSError, ValueError) as error:  # Arrow's are ValueErrors
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is not a well-formed Parquet file: {reason}") from error


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
