"""What has become of each run, kept in one file of the sweep's folder: written aside, then renamed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.atomic import write_json

State = Literal["planned", "pruned", "filtered", "submitted", "running", "complete", "failed", "interrupted"]
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One run's record."""

    argv: tuple[str, ...]
    label: str
    processes: int = 0
    state: State = "planned"
    attempts: int = 0  # over all invocations of the sweep
    exit_code: int | None = None
    message: str | None = None  # why it was pruned, failed or interrupted
    started: str | None = None  # UTC, ISO 8601
    ended: str | None = None
    duration_s: float | None = None  # of the last attempt, with start and load
    folder: str | None = None  # of the results; None: a node's GPU will name it
    planned_on: str | None = None  # device and program version that the run was planned for
    log: str | None = None  # of the last attempt
    slurm_task: str | None = None  # job and array task, 123_4
    slurm_record: str | None = None  # file that the task leaves its exit code in


@dataclass
class Ledger:
    """The state of a whole sweep; `save` after each change keeps the file true."""

    file: Path
    entries: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> Ledger:
        """The ledger of an earlier invocation, or an empty one.

        Raises:
            UserError: the file is there but is none of this program's.
        """
        try:
            content = json.loads(file.read_bytes())
        except FileNotFoundError:
            return cls(file)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {file}: {error}; move it away to start anew") from None
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise UserError(f"{file} is of another version of this program; move it away to start anew")
        entries = {key: _entry(values) for key, values in content["runs"].items()}
        return cls(file, entries)

    def save(self) -> None:
        """Write it whole.

        Raises:
            UserError: the file cannot be written.
        """
        runs = {key: asdict(entry) for key, entry in self.entries.items()}
        write_json(self.file, {"version": VERSION, "runs": runs})

    def update(self, key: str, **changes: Any) -> Entry:
        """Change one run's record; not yet saved."""
        self.entries[key] = replace(self.entries[key], **changes)
        return self.entries[key]

    def counts(self, keys: Mapping[str, Any] | None = None) -> Counter[str]:
        """Runs in each state, of these keys or of all."""
        return Counter(entry.state for key, entry in self.entries.items() if keys is None or key in keys)


def now() -> str:
    """The present in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _entry(values: dict[str, Any]) -> Entry:
    known = {name: value for name, value in values.items() if name in Entry.__dataclass_fields__}
    return Entry(**{**known, "argv": tuple(known["argv"])})
