"""Processes that end with the one that started them, and what the next call finds of them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors import leftover
from mlenergy.diffusion.executors.ledger import Entry, Ledger
from mlenergy.diffusion.executors.leftover import as_on_disk, wait_for_leftovers
from mlenergy.diffusion.executors.local import Slots
from mlenergy.diffusion.results.lock import holder_of
from mlenergy.diffusion.tune.runner import Runner

# A job of the executor that takes its lifeline, says so, and notes how it ended.
JOB = """
import pathlib, signal, sys, time
from mlenergy.diffusion.supervision.parent import hold_lifeline
out = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: ((out / "ended").touch(), sys.exit(0)))
if "late" in sys.argv: time.sleep(1)  # its parent is gone by now
hold_lifeline()
assert sys.stdin.read() == ""
(out / "job").write_text("there")
time.sleep(60)
"""
STARTER = """
import pathlib, sys, time
from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.process import Attempt
out = pathlib.Path(sys.argv[1])
job = Job((), "", 1, 1, "cpu", 1.0, None)
command = [sys.executable, "-c", sys.argv[2], *sys.argv[1:2], *sys.argv[3:]]
Attempt.start(job, command, ("",), out / "log")
Attempt.start(job, [sys.executable, "-c", "import time; time.sleep(3)"], ("",), out / "log2")
(out / "started").touch()
time.sleep(60)
"""
# As torchrun starts a rank, and dies without a word.
RANK = """
import os, pathlib, signal, subprocess, sys, time
out = pathlib.Path(sys.argv[1])
if len(sys.argv) == 2:
    process = subprocess.Popen([sys.executable, __file__, sys.argv[1], "rank"], start_new_session=True)
    while not (out / "job").exists(): time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)
from mlenergy.diffusion.supervision.parent import end_with_launcher
signal.signal(signal.SIGTERM, lambda *_: ((out / "ended").touch(), sys.exit(0)))
end_with_launcher()
(out / "job").touch()
time.sleep(60)
"""


def wait_until(file, limit_s=30):
    end = time.monotonic() + limit_s
    while not file.exists():
        assert time.monotonic() < end, f"no {file.name}"
        time.sleep(0.02)


@pytest.mark.parametrize("late", [(), ("late",)], ids=["while it runs", "before it listens"])
def test_a_killed_starter_takes_its_jobs_along(tmp_path, late):
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path), JOB, *late])
    wait_until(tmp_path / "started" if late else tmp_path / "job")
    assert not (tmp_path / "ended").exists()
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    wait_until(tmp_path / "ended")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux sends the signal")
def test_a_killed_launcher_takes_its_ranks_along(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    environ = {**os.environ, "TORCHELASTIC_RUN_ID": "none", "PYTHONPATH": str(Path.cwd())}
    subprocess.run([sys.executable, str(script), str(tmp_path)], env=environ, check=False)
    wait_until(tmp_path / "ended")


HOLDER = """
import sys, time
from pathlib import Path
from mlenergy.diffusion.results.lock import result_lock
with result_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """A run's folder whose lock another process holds until its input is closed."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield folder, process
    process.kill()
    process.wait()
    process.stdout.close()


def ledger_of(tmp_path, folder, **values):
    entry = Entry(("a",), "a set-up", state="running", folder=str(folder))
    return Ledger(tmp_path / "state.json", {"key": entry, "other": Entry(("b",), "another", **values)})


def test_the_next_call_waits_for_what_a_killed_one_has_left(tmp_path, held):
    folder, process = held
    ledger, said = ledger_of(tmp_path, folder, state="failed"), []
    (folder / "status.json").write_text(
        json.dumps({"state": "interrupted", "message": "interrupted by SIGTERM", "exit_code": 143})
    )

    def say(line):
        said.append(line)
        threading.Timer(0.3, process.stdin.close).start()

    wait_for_leftovers(ledger, say)
    assert process.wait(timeout=10) == 0
    (line,) = said
    assert f"(process {process.pid} on " in line and "a set-up" in line
    entry = ledger.entries["key"]
    assert (entry.state, entry.message) == ("interrupted", "interrupted by SIGTERM")
    assert ledger.entries["other"].state == "failed"


def test_a_search_waits_too(tmp_path, held):
    folder, process = held
    ledger_of(tmp_path, folder).save()
    said = []

    def say(line):
        said.append(line)
        threading.Timer(0.3, process.stdin.close).start()

    Runner(tmp_path, Slots(unnamed=1), False, say)
    assert process.wait(timeout=10) == 0 and "waiting for a run" in said[0]


def test_a_leftover_that_does_not_end_is_one_line(tmp_path, held):
    folder, process = held
    with pytest.raises(UserError, match=rf"process {process.pid} on .* does not end.*; end it, then"):
        wait_for_leftovers(ledger_of(tmp_path, folder), lambda line: None, limit_s=0.1)


def test_asking_for_the_holder_takes_no_lock(held):
    folder, process = held
    assert holder_of(folder / ".lock").startswith(f"process {process.pid} on ")
    assert holder_of(folder / "absent") is None
    process.stdin.close()
    process.wait()
    (folder / ".lock").touch()
    assert holder_of(folder / ".lock") is None


@pytest.mark.parametrize(
    ("state", "is_there", "status", "now"),
    [
        ("complete", True, None, "complete"),
        ("complete", False, None, "planned"),
        ("running", True, None, "complete"),
        ("failed", True, None, "complete"),
        ("planned", True, None, "complete"),
        ("running", False, None, "interrupted"),
        ("running", False, {"state": "running"}, "interrupted"),
        ("running", False, {"state": "interrupted", "message": "by SIGTERM"}, "interrupted"),
        ("running", False, {"state": "failed", "message": "out of memory"}, "failed"),
        ("running", False, {"state": "complete"}, "interrupted"),
        ("failed", False, {"state": "interrupted"}, "failed"),
        ("pruned", True, None, "pruned"),
    ],
)
def test_a_record_is_as_the_disk_tells(tmp_path, monkeypatch, state, is_there, status, now):
    monkeypatch.setattr(leftover, "has_result", lambda folder: is_there)
    if status is not None:
        (tmp_path / "status.json").write_text(json.dumps(status))
    entry = as_on_disk(Entry(("a",), "a", state=state, folder=str(tmp_path), message="before"))
    assert entry.state == now
    if status is not None and "message" in status and state == "running":
        assert entry.message == status["message"]
    in_slurm = Entry(("a",), "a", state="running", folder=str(tmp_path), slurm_task="1_1")
    assert as_on_disk(in_slurm) == in_slurm
