"""What a sweep or a search says while it runs, kept with its times."""

from __future__ import annotations

from pathlib import Path

from mlenergy.diffusion.executors.ledger import now


class LogFile:
    """Lines added to a file; its folder is made."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)

    def write(self, line: str) -> None:
        """To the file only."""
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(f"{now()} {line}\n")
