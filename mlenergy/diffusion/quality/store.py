"""What extractors made of images, kept in a file as it is computed: an interrupted metric goes on from there.

A value is found by the digest of its image (or pair of images, or image and text) and by the extractor with
its weights, settings and versions. Values of other images or settings have other keys: they are never mixed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    Values = np.ndarray[Any, np.dtype[Any]]

_TABLE = (
    "CREATE TABLE IF NOT EXISTS value "
    "(extractor TEXT, input TEXT, type TEXT, numbers BLOB, PRIMARY KEY (extractor, input))"
)
_AT_A_TIME = 500  # SQLite takes at least 999 values in a statement


class Store:
    """A file of vectors; one process writes it at a time.

    Raises:
        UserError: the file cannot be written, or is not one of these.
    """

    def __init__(self, file: Path, *, read_only: bool = False) -> None:
        self.file = file
        with self._explained():
            place = file.resolve().as_uri()
            self._database = sqlite3.connect(f"{place}?mode={'ro' if read_only else 'rwc'}", uri=True)
            if not read_only:
                self._database.execute(_TABLE)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def put(self, extractor: str, values: Mapping[str, Values]) -> None:
        """Add values by their inputs' keys: all of them or none are in the file afterwards."""
        import numpy as np

        arrays = {key: np.atleast_1d(one) for key, one in values.items()}
        rows = [(extractor, key, one.dtype.str, one.tobytes()) for key, one in arrays.items()]
        with self._explained(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO value VALUES (?, ?, ?, ?)", rows)

    def get(self, extractor: str, inputs: Sequence[str]) -> dict[str, Values]:
        """Values of those inputs that are known."""
        import numpy as np

        wanted, found = list(dict.fromkeys(inputs)), dict[str, Any]()
        for start in range(0, len(wanted), _AT_A_TIME):
            part = wanted[start : start + _AT_A_TIME]
            places = ",".join("?" * len(part))
            query = f"SELECT input, type, numbers FROM value WHERE extractor = ? AND input IN ({places})"
            with self._explained():
                rows = self._database.execute(query, (extractor, *part)).fetchall()
            found.update({key: np.frombuffer(numbers, kind) for key, kind, numbers in rows})
        return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(
                f"{self.file}: {error}; make its folder writable, or delete this file of intermediate values"
            ) from error
