"""The state of many runs, kept in one folder: a JSON file, a log with times, and a lock for one writer."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.results.lock import result_lock

State = Literal["planned", "pruned", "filtered", "submitted", "running", "complete", "failed", "interrupted"]
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One run's record."""

    argv: tuple[str, ...]
    label: str
    processes: int = 0
    state: State = "planned"
    attempts: int = 0  # over all calls of the program
    exit_code: int | None = None
    message: str | None = None  # the reason why it was pruned, failed or interrupted
    started: str | None = None  # UTC, ISO 8601
    ended: str | None = None
    duration_s: float | None = None  # of the last attempt, with start and load
    folder: str | None = None  # of the results; None: a node's GPU will name it
    planned_on: str | None = None  # device and program version that the run was planned for
    log: str | None = None  # of the last attempt
    slurm_task: str | None = None  # job and array task, 123_4
    slurm_record: str | None = None  # file into which the task writes its exit code


@dataclass
class Ledger:
    """The state of all runs; `save` after each change keeps the file current."""

    file: Path
    entries: dict[str, Entry] = field(default_factory=dict)  # by Job.key

    @classmethod
    def load(cls, file: Path) -> Ledger:
        """The ledger of an earlier call, or an empty one.

        Raises:
            UserError: the file exists but cannot be read, or is not of this version.
        """
        try:
            content = json.loads(file.read_bytes())
        except FileNotFoundError:
            return cls(file)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {file}: {error}; move it away to start anew") from None
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise UserError(f"{file} is of another version of this program; move it away to start anew")
        entries = {}
        for key, values in content["runs"].items():
            known = {name: value for name, value in values.items() if name in Entry.__dataclass_fields__}
            entries[key] = Entry(**{**known, "argv": tuple(known["argv"])})
        return cls(file, entries)

    def save(self) -> None:
        """Write the whole file.

        Raises:
            UserError: the file cannot be written.
        """
        runs = {key: asdict(entry) for key, entry in self.entries.items()}
        write_json(self.file, {"version": VERSION, "runs": runs})

    def update(self, key: str, **changes: Any) -> Entry:
        """Change one run's record, without saving."""
        self.entries[key] = replace(self.entries[key], **changes)
        return self.entries[key]

    def counts(self, keys: Mapping[str, Any] | None = None) -> Counter[str]:
        """Number of runs in each state, of these keys or of all."""
        return Counter(entry.state for key, entry in self.entries.items() if keys is None or key in keys)


class LogFile:
    """A text file to which lines are appended, each with its time; its folder is created."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)

    def write(self, line: str) -> None:
        """Append one line to the file; nothing is printed."""
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(f"{now()} {line}\n")


def now() -> str:
    """The current time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def folder_lock(folder: Path, alternative: str) -> Iterator[None]:
    """Hold a folder, so that one process at a time runs jobs for it.

    Args:
        folder: of the ledger.
        alternative: the advice to the user, beside waiting.

    Raises:
        UserError: another process holds the folder, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(result_lock(folder / ".lock"))
        except UserError as error:
            raise UserError(f"{str(error).partition(';')[0]}; wait for it, or {alternative}") from None
        yield
