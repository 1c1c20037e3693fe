"""status.json: times, ends, and runs that died without a word."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from mlenergy.diffusion.supervision import status as module
from mlenergy.diffusion.supervision.status import (
    StatusFile,
    close_for_the_dead,
    is_alive,
    mark_complete,
    read_ending,
    read_status,
)

ENDS = ("complete", "failed", "effects_failed", "interrupted")


@pytest.fixture
def clock(monkeypatch):
    """Times are t1, t2, ... in the order in which they are asked for."""
    times = (f"t{number}" for number in range(1, 100))
    monkeypatch.setattr(module, "_now", lambda: next(times))


def test_each_moment_is_kept(tmp_path, clock):
    file = StatusFile(tmp_path / "status.json", 4)
    file.write(stage="loading")
    file.write(state="running", stage="measuring")
    file.write(state="running", iterations_done=1)
    assert not file.has_ended
    file.write(state="complete", stage="done", exit_code=0)
    found = json.loads((tmp_path / "status.json").read_text())
    moments = {name: found[name] for name in ("planned", "started", "updated", "finished")}
    assert moments == {"planned": "t1", "started": "t3", "updated": "t5", "finished": "t5"}
    assert (found["iterations_done"], found["world_size"], found["stage"]) == (1, 4, "done")
    assert (found["pid"], found["host"]) == (os.getpid(), socket.gethostname())
    assert file.has_ended


def test_a_folder_that_is_gone_is_not_made_again(tmp_path, capsys):
    StatusFile(tmp_path / "gone" / "status.json", 1).write(state="running")
    assert not (tmp_path / "gone").exists() and "not up to date" in capsys.readouterr().out


@pytest.fixture
def left(tmp_path):
    """A status.json as a run has left it."""

    def write(**changes):
        content = {"state": "running", "host": socket.gethostname(), "pid": os.getpid(), "message": None}
        content |= {"planned": "2026-01-02T03:04:05.678+00:00", "exit_code": None, "rank": None, **changes}
        (tmp_path / "status.json").write_text(json.dumps(content))
        return tmp_path / "status.json"

    return write


@pytest.mark.parametrize("state", ENDS)
def test_every_end_is_read_and_nothing_else_is_one(left, state):
    ending = read_ending(left(state=state, message="why", exit_code=3))
    assert (ending.state, ending.message, ending.exit_code) == (state, "why", 3)
    assert read_ending(left(state="running")) is read_ending(left(state="planned")) is None


@pytest.mark.parametrize(
    ("later_s", "own"), [(-100.0, True), (0.0, True), (0.0009, True), (0.1, False), (100, False)]
)
def test_an_earlier_runs_end_is_not_this_ones(left, later_s, own):
    planned_s = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC).timestamp()
    assert (read_ending(left(state="complete"), since_s=planned_s + later_s) is not None) is own


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_file_that_cannot_be_read_is_no_end(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    assert read_status(tmp_path / "status.json") is read_ending(tmp_path / "status.json") is None
    assert read_status(tmp_path / "absent") is None


def dead_pid():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_dead_run_is_closed_with_its_reason(left):
    file = left(pid=dead_pid(), stage="measuring", iterations_done=3)
    close_for_the_dead(file, "it was killed")
    found = read_status(file)
    assert (found["state"], found["message"], found["exit_code"], found["rank"]) == (
        "failed",
        "it was killed",
        1,
        0,
    )
    assert (found["stage"], found["iterations_done"]) == ("measuring", 3) and found["finished"] == found[
        "updated"
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": os.getpid()},
        {"host": "elsewhere", "pid": 2**22},
        *({"state": one, "pid": 2**22} for one in ENDS),
    ],
)
def test_a_run_that_lives_or_has_ended_or_is_elsewhere_is_left_alone(left, changes):
    file = left(**changes)
    before = file.read_text()
    close_for_the_dead(file, "it was killed")
    assert file.read_text() == before


def test_a_process_that_is_dead_but_not_collected_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""])
    ends_s = time.monotonic() + 60
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still there
    assert not is_alive(child.pid) and time.monotonic() < ends_s
    child.wait()
    assert is_alive(os.getpid()) and is_alive(1)


def test_an_accepted_result_completes_its_run(left):
    file = left(state="effects_failed", message="no effect", exit_code=2, traceback="x")
    mark_complete(file)
    found = read_status(file)
    assert (found["state"], found["stage"], found["exit_code"]) == ("complete", "done", 0)
    assert found["message"] is found["traceback"] is None
