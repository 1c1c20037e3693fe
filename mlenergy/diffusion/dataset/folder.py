"""Read a folder of images with captions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlenergy.diffusion.dataset.prepare import read_record
from mlenergy.diffusion.dataset.source import METADATA, FolderSource
from mlenergy.diffusion.errors import UserError


@dataclass(frozen=True)
class Example:
    """An image's file and its caption."""

    file: Path
    caption: str


@dataclass(frozen=True)
class ImageFolder:
    """Images with captions, in the order of metadata.jsonl."""

    folder: Path
    examples: tuple[Example, ...]

    def provenance(self) -> dict[str, Any]:
        """Digests that say which images these are, for the results of what works on them."""
        record = read_record(self.folder) or {}
        return {
            "folder": str(self.folder.resolve()),
            "images": len(self.examples),
            "metadata_sha256": hashlib.sha256((self.folder / METADATA).read_bytes()).hexdigest(),
            "images_sha256": record.get("images_sha256"),
            "request": record.get("request"),
        }


def read_images(folder: Path) -> ImageFolder:
    """The images of a folder with metadata.jsonl, in which each has a `text`.

    Raises:
        UserError: there is no such folder, it is incomplete, or an image or caption is missing.
    """
    advice = "make it by mlenergy dataset prepare"
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; {advice}")
    record = read_record(folder)
    if record is not None and record["state"] != "complete":
        raise UserError(f"{folder} is incomplete: its preparation was interrupted; run it again")
    if not (folder / METADATA).is_file():
        raise UserError(f"{folder} has no {METADATA} and so no captions; {advice}")
    source = FolderSource(folder)
    rows = list(source.rows(set(range(source.count()))))
    empty = [str(row.name) for row in rows if not str(row.values.get("text") or "").strip()]
    if empty:
        raise UserError(
            f"{len(empty)} of the {len(rows)} images of {folder} have no text: {_few(empty)}; {advice}"
        )
    missing = [str(row.name) for row in rows if not (folder / str(row.name)).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(rows)} images of {folder} are missing: {_few(missing)}; {advice}"
        )
    return ImageFolder(folder, tuple(Example(folder / str(r.name), str(r.values["text"])) for r in rows))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")
