"""The runs that an export writes, and those that it cannot write, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlenergy.diffusion.results.find import find_results
from mlenergy.diffusion.results.read import load_found
from mlenergy.diffusion.results.record import ResultRecord


@dataclass(frozen=True)
class Run:
    """A complete result."""

    record: ResultRecord
    content: dict[str, Any]  # of results.json
    folder: Path


@dataclass
class Export:
    """Record of an export: results written, and those left out."""

    written: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)  # path and reason

    def leave_out(self, record: ResultRecord, reason: str) -> None:
        """Note a run that the format cannot hold."""
        self.left_out.append((record.path, reason))


def complete_runs(root: Path, export: Export) -> Iterator[Run]:
    """Every complete result below a folder, one at a time; all else is noted with its reason."""
    for found in find_results(root):
        loaded = load_found(root, found)
        if loaded.content is None:
            export.leave_out(loaded.record, loaded.record.reason or loaded.record.state)
        else:
            yield Run(loaded.record, loaded.content, root / found.folder)
