"""status.json: what a run is doing, and how it ended. Written whole, by one process at a time.

Whoever started the run reads its end from here rather than from a log.
"""

from __future__ import annotations

import json
import os
import socket
import traceback
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.supervision.exit_codes import UNEXPECTED, exit_code_for, message_of
from mlenergy.diffusion.supervision.out_of_memory import OutOfMemory

State = Literal["planned", "running", "complete", "failed", "effects_failed", "interrupted"]
ENDED: tuple[State, ...] = ("complete", "failed", "effects_failed", "interrupted")


@dataclass(frozen=True)
class Status:
    """The content of status.json. Times are UTC, ISO 8601; None: not yet, or not known."""

    state: State
    stage: str  # what the run was doing: starting, loading, measuring, saving, effects, done
    planned: str
    started: str | None = None
    updated: str | None = None
    finished: str | None = None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    world_size: int = 1
    iterations_done: int = 0
    durations_s: tuple[float, ...] = ()  # of the measured windows so far, on rank 0
    rank: int | None = None  # the one that failed first
    message: str | None = None
    exit_code: int | None = None  # None: the run has not ended
    traceback: str | None = None
    signal: str | None = None
    memory: dict[str, Any] | None = None  # figures of an out-of-memory failure


class StatusFile:
    """The status of one run, kept in memory and written at each change of stage."""

    def __init__(self, path: Path, world_size: int) -> None:
        self.path = path
        self.status = Status(state="planned", stage="starting", planned=_now(), world_size=world_size)

    def write(self, **changes: Any) -> None:
        """Change fields and write the file.

        A file that cannot be written is no reason to lose a run: what matters then is said elsewhere.
        A folder that no longer exists is not created again.
        """
        now = _now()
        if changes.get("state") == "running" and self.status.started is None:
            changes["started"] = now
        if changes.get("state") in ENDED:
            changes["finished"] = now
        self.status = replace(self.status, updated=now, **changes)
        try:
            self.path.parent.stat()
            write_json(self.path, asdict(self.status))
        except Exception as error:  # a full disk, a lost file system
            print(f"status.json is not up to date: {error}", flush=True)

    @property
    def has_ended(self) -> bool:
        """True where the last state is a final one."""
        return self.status.state in ENDED


def read_status(path: Path) -> dict[str, Any] | None:
    """The content of a status.json, or None where it is absent or cannot be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def describe(error: BaseException, rank: int) -> dict[str, Any]:
    """The record of a failure in status.json; `memory` is None where memory is not the matter."""
    return {
        "rank": rank,
        "message": message_of(error, rank),
        "exit_code": exit_code_for(error),
        "traceback": "".join(traceback.format_exception(error)),
        "memory": error.record() if isinstance(error, OutOfMemory) else None,
    }


@dataclass(frozen=True)
class Ending:
    """End of a run."""

    state: State  # one of ENDED
    message: str | None  # one line; None for a complete run
    exit_code: int | None  # None: written by an earlier version of this program


def read_ending(path: Path, since_s: float | None = None) -> Ending | None:
    """End of the run of a status.json; None where it has not ended, or the file cannot be read.

    Args:
        path: of the status.json.
        since_s: seconds since the epoch when the run was started; an earlier run's end is not its own.
    """
    content = read_status(path)
    if content is None or content.get("state") not in ENDED:
        return None
    # Times in the file are cut to milliseconds.
    if since_s is not None and datetime.fromisoformat(content["planned"]).timestamp() < since_s - 0.001:
        return None
    return Ending(content["state"], content.get("message"), content.get("exit_code"))


def close_for_the_dead(path: Path, message: str) -> None:
    """Mark a run as failed whose own rank 0 can no longer do so, if it was still running on this host."""
    content = read_status(path)
    if content is None or content.get("state") in ENDED or content.get("host") != socket.gethostname():
        return
    if is_alive(int(content["pid"])):
        return
    now = _now()
    write_json(
        path,
        {
            **content,
            **{"state": "failed", "message": message, "exit_code": UNEXPECTED, "rank": 0},
            **{"updated": now, "finished": now},
        },
    )


def mark_complete(path: Path) -> None:
    """Mark a run as complete whose result has been accepted since it ended."""
    content = read_status(path)
    if content is not None:
        changes = {"state": "complete", "stage": "done", "message": None, "exit_code": 0, "traceback": None}
        write_json(path, {**content, **changes, "updated": _now()})


def is_alive(pid: int) -> bool:
    """True while a process of this host runs; one that is dead but not yet collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return "Z" not in _state_letter(pid)


def _state_letter(pid: int) -> str:
    """The process's state in /proc (Z: dead, but not yet collected by its parent); empty where unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
