"""status.json: what a run is doing, and how it ended. Written whole, by one process at a time."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mlenergy.diffusion.results.atomic import write_json

State = Literal["planned", "running", "complete", "failed", "interrupted"]
ENDED: tuple[State, ...] = ("complete", "failed", "interrupted")


@dataclass(frozen=True)
class Status:
    """The content of status.json. Times are UTC, ISO 8601; None: not yet, or not known."""

    state: State
    stage: str  # what the run was doing: starting, loading, warm-up, measuring, saving
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
        A folder that has gone is not made anew.
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
        """Whether the last state is a final one."""
        return self.status.state in ENDED


def read_status(path: Path) -> dict[str, Any] | None:
    """The content of a status.json, or None where there is none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def close_for_the_dead(path: Path, message: str) -> None:
    """Mark a run as failed whose own rank 0 can no longer do so, if it was still running on this host."""
    content = read_status(path)
    if content is None or content.get("state") in ENDED or content.get("host") != socket.gethostname():
        return
    if is_alive(int(content["pid"])):
        return
    now = _now()
    write_json(
        path, {**content, "state": "failed", "message": message, "rank": 0, "updated": now, "finished": now}
    )


def is_alive(pid: int) -> bool:
    """Whether a process of this host runs; one that is dead but not yet collected does not."""
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
