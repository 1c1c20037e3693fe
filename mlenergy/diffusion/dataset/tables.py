"""Tables of images: Parquet files and datasets of the hub, streamed by `datasets`, never held as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Image, load_dataset, load_dataset_builder

from mlenergy.diffusion.dataset.source import Row
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts.hub import HubDataset, choose_split, explain_hub, resolve_commit

_INSTEAD = "name a local folder or Parquet files"


class TableSource:
    """Rows of a streamed dataset. Pictures stay encoded until their row is drawn."""

    def __init__(
        self,
        name: str,
        where: Mapping[str, Any],
        split: str,
        image_column: str,
        known_count: int | None,
        provenance: Mapping[str, Any],
    ) -> None:
        datasets.disable_progress_bars()
        self.name = name
        self._stream = load_dataset(split=split, streaming=True, **where)
        self._features = self._stream.features or self._stream._resolve_features().features
        self._known_count = known_count
        self._provenance = dict(provenance)
        self._image_column = image_column
        self.columns: Sequence[str] = list(self._features)
        self.labels: Mapping[str, Sequence[str]] = {
            column: feature.names
            for column, feature in self._features.items()
            if isinstance(feature, ClassLabel)
        }

    def provenance(self) -> dict[str, Any]:
        """Kind, place and revision."""
        return self._provenance

    def count(self) -> int:
        """Number of rows, by the files' footers or the card, else by reading the shortest column."""
        if self._known_count is None:
            others = [name for name in self.columns if name != self._image_column][:1] or self.columns
            self._known_count = sum(1 for _ in self._stream.select_columns(others))
        return self._known_count

    def rows(self, wanted: set[int]) -> Iterator[Row]:
        """The wanted rows, in order.

        Raises:
            UserError: the files cannot be read.
        """
        stream = self._stream
        if isinstance(self._features.get(self._image_column), Image):
            stream = stream.cast_column(self._image_column, Image(decode=False))
        last = max(wanted, default=-1)
        try:
            for index, values in enumerate(stream):
                if index in wanted:
                    yield Row(index, _picture(values.pop(self._image_column)), values)
                if index >= last:
                    return
        except (OSError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"cannot read {self.name} ({reason}); check its files, then go on") from error


def parquet_source(files: Sequence[Path], name: str, image_column: str) -> TableSource:
    """Rows of Parquet files, one file after the other.

    Raises:
        UserError: a file is not Parquet, or they have different columns.
    """
    import pyarrow.parquet as pq

    rows = []
    for file in files:
        try:
            rows.append(int(pq.read_metadata(file).num_rows))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{file} is not a well-formed Parquet file: {reason}") from error
    provenance = {
        "kind": "parquet",
        "path": str(Path(name).resolve()),
        "files": [
            {"name": file.name, "bytes": file.stat().st_size, "rows": count}
            for file, count in zip(files, rows, strict=True)
        ],
    }
    where = {"path": "parquet", "data_files": [str(file) for file in files]}
    return TableSource(name, where, "train", image_column, sum(rows), provenance)


def hub_source(source: HubDataset, image_column: str) -> TableSource:
    """Rows of a dataset on the hub, at the commit that its revision stands for now.

    Raises:
        UserError: no network, no such dataset, revision or split, or no permission to read it.
    """
    commit = resolve_commit(source, _INSTEAD)
    where = {"path": source.dataset_id, "name": source.configuration, "revision": commit}
    try:
        builder = load_dataset_builder(**where)
        split = choose_split(source, list(builder.config.data_files or builder.info.splits or {}))
        known = (builder.info.splits or {}).get(split)
        provenance = {
            "kind": "hub",
            "dataset": source.dataset_id,
            "configuration": source.configuration,
            "split": split,
            "revision": commit,
        }
        count = getattr(known, "num_examples", None) or None
        return TableSource(source.dataset_id, where, split, image_column, count, provenance)
    except UserError:
        raise
    except Exception as error:
        raise explain_hub(source, error, _INSTEAD) from error


def _picture(value: Any) -> bytes | None:
    """The bytes of a picture, in the forms that tables hold: bytes, or a dict with bytes or a path."""
    if isinstance(value, dict):
        content = value.get("bytes")
        if content is None and value.get("path"):
            with datasets.utils.file_utils.xopen(value["path"], "rb") as stream:
                content = stream.read()
        value = content
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else None
