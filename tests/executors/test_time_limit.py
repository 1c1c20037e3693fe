"""The time that a Slurm job has left, with a squeue that prints a fixed line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mlenergy.diffusion.executors import time_limit


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program; tests write what it prints."""
    program = tmp_path / "squeue"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return program


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("58", None),
        ("0:58", 58),
        ("12:05", 725),
        ("1:00:00", 3600),
        ("2-03:04:05", 183845),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_squeues_time_left_is_read(squeue: Path, text: str, seconds: float | None) -> None:
    squeue.write_text(f"#!/bin/sh\necho '{text}'\n")
    assert time_limit.time_left_s() == seconds


def test_without_slurm_nothing_is_known(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    squeue.write_text("#!/bin/sh\necho 0:58\n")
    assert time_limit.time_left_s() is None


def test_a_container_without_squeue_knows_the_end_or_nothing(tmp_path: Path, squeue: Path) -> None:
    squeue.unlink()
    assert time_limit.time_left_s({"SLURM_JOB_ID": "7"}) is None
    left_s = time_limit.time_left_s({"SLURM_JOB_END_TIME": str(int(time.time()) + 1000)})
    assert left_s == pytest.approx(1000, abs=60)


@pytest.mark.parametrize(("left", "warned"), [("2:59", True), ("3:00", True), ("3:01", False)])
def test_a_job_that_ends_before_its_signal_leads_is_warned(squeue: Path, left: str, warned: bool) -> None:
    """Slurm may send the signal a minute earlier than asked."""
    squeue.write_text(f"#!/bin/sh\necho {left}\n")
    warning = time_limit.warning_of(120)
    assert (warning is not None) == warned
    if warning is not None:
        assert "before anything is measured; give it more --time" in warning
