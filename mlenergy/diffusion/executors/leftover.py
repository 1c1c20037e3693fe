"""Runs that a killed sweep or search has left: the ledger says running, and nobody waits for them.

Such a run notices the end of the process that started it and ends by itself, after its window and with what
it has measured. Until then its GPUs are not free.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.job import has_result
from mlenergy.diffusion.executors.ledger import Entry, Ledger, State
from mlenergy.diffusion.results.lock import holder_of
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.supervision.status import read_ending

LIMIT_S = 90.0  # a run that was asked to stop takes its window, 20 s at most, and torchrun 30 s more
_POLL_S = 0.2


def wait_for_leftovers(ledger: Ledger, say: Callable[[str], None], limit_s: float = LIMIT_S) -> None:
    """Return once no run that an earlier call has left is still writing; the ledger then says how each ended.

    Raises:
        UserError: one of them does not end.
    """
    left = {key: entry for key, entry in ledger.entries.items() if _is_left(entry)}
    told: set[str] = set()
    limit = time.monotonic() + limit_s
    for key, entry in left.items():
        lock = RunPaths(Path(entry.folder or ""), "").lock
        while (holder := holder_of(lock)) is not None:
            if key not in told:
                told.add(key)
                say(f"waiting for a run that an earlier call has left ({holder}): {entry.label}")
            if time.monotonic() > limit:
                raise UserError(
                    f"{holder} does not end, which an earlier call has left and which writes {lock.parent}; "
                    "end it, then start again"
                )
            time.sleep(_POLL_S)
        ledger.entries[key] = as_on_disk(entry)


def as_on_disk(entry: Entry) -> Entry:
    """A run's record, as its folder on this machine tells how it is; runs of Slurm stay as they are."""
    if entry.folder is None or entry.slurm_task is not None:
        return entry
    folder = Path(entry.folder)
    if entry.state == "complete":
        if has_result(folder):
            return entry
        return replace(entry, state="planned", message="its result is gone, or not whole any more")
    if entry.state not in ("running", "interrupted", "failed", "planned"):
        return entry
    if has_result(folder):
        return replace(entry, state="complete", message=None)
    if entry.state != "running" or holder_of(RunPaths(folder, "").lock) is not None:
        return entry
    ending = read_ending(RunPaths(folder, "").status)
    if ending is None or ending.state == "complete":
        return replace(entry, state="interrupted", message="it ended with the process that had started it")
    state: State = "interrupted" if ending.state == "interrupted" else "failed"
    return replace(entry, state=state, message=ending.message, exit_code=ending.exit_code)


def _is_left(entry: Entry) -> bool:
    return entry.state == "running" and entry.slurm_task is None and entry.folder is not None
