"""The states of Slurm's tasks in the ledger, with a squeue that prints fixed lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlenergy.diffusion.executors import slurm
from mlenergy.diffusion.executors.ledger import Entry, Ledger

LOG = "working\nmlenergy: error: interrupted by SIGUSR1\n"


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Six submitted tasks: two are in the queue, three have left an exit code, one has left nothing."""
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho 7_1 PENDING\necho 7_2 RUNNING\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:/usr/bin:/bin")
    for task, code in ((3, 0), (4, 2), (5, 1)):
        (tmp_path / f"{task}.ended").write_text(f"{code}\n")
    (tmp_path / "4.log").write_text("mlenergy: error: no such file\n")
    (tmp_path / "5.log").write_text(LOG)
    ledger = Ledger(tmp_path / "state.json")
    for task in range(1, 7):
        ledger.entries[str(task)] = Entry(
            argv=(),
            label="",
            state="submitted",
            log=str(tmp_path / f"{task}.log"),
            slurm_task=f"7_{task}",
            slurm_record=str(tmp_path / f"{task}.ended"),
        )
    ledger.save()
    return ledger


def test_states_come_from_the_queue_and_from_exit_codes(ledger: Ledger) -> None:
    slurm.refresh(ledger)
    found = [(entry.state, entry.message) for entry in Ledger.load(ledger.file).entries.values()]
    assert found == [
        ("submitted", None),
        ("running", None),
        ("complete", None),
        ("failed", "no such file"),
        ("interrupted", "interrupted by SIGUSR1"),
        ("interrupted", f"it left the queue without an exit code; see {ledger.file.with_name('6.log')}"),
    ]


def test_a_look_at_the_states_need_not_write_the_file(ledger: Ledger) -> None:
    before = ledger.file.read_text()
    slurm.refresh(ledger, save=False)
    assert ledger.entries["2"].state == "running"
    assert ledger.file.read_text() == before
