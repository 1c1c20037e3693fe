"""Signals before anything is measured: one line, the exit code, and the status on disk."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest

from mlenergy.diffusion.executors.torchrun import exit_code_of

SUPPORT = Path(__file__).parents[1] / "support"
LAUNCHER = "mlenergy.diffusion.executors.torchrun"
RUN = ["workload:t2i", "--workload.model_id", "tiny/flux", "--workload.dataset", "bundled"]
COMMANDS = {
    "mlenergy run": [str(Path(sys.executable).with_name("mlenergy")), "run"],
    "launcher": [sys.executable, "-m", LAUNCHER, "--nproc_per_node=1", "--"],
    "benchmark": [sys.executable, "-m", "mlenergy.diffusion.benchmark"],
}
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def start(command, folder, popen=subprocess.Popen, **environ):
    return popen(
        [*command, *RUN, "--workload.base_dir", str(folder / "base")],
        env={**os.environ, "PYTHONPATH": str(SUPPORT / "stuck_torch"), **environ},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(is_so, process):
    limit = time.monotonic() + 60
    while not is_so():
        if process.poll() is not None or time.monotonic() > limit:
            process.kill()
            raise AssertionError(process.communicate())
        time.sleep(0.01)


def line_of(process):
    """The one line of error; everything else that was printed is a stage's name."""
    _, err = process.communicate(timeout=30)
    others = [line for line in err.splitlines() if not line.startswith("mlenergy: error: ")]
    assert all(re.fullmatch("starting|loading tiny/flux", line) for line in others), err
    (line,) = (line for line in err.splitlines() if line not in others)
    return line.removeprefix("mlenergy: error: ")


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["mlenergy run", "launcher"])
def test_a_launcher_that_still_imports_torch_ends_in_one_line(tmp_path, name, number):
    process = start(COMMANDS[name], tmp_path)
    assert process.stdout.readline() == "importing torch\n"
    process.send_signal(number)
    line = line_of(process)
    assert line.startswith(f"interrupted by {number.name} while starting, before anything was measured")
    assert ("give the job more time" in line) == (number == signal.SIGUSR1)
    assert process.returncode == 128 + number


@pytest.mark.parametrize("number", NUMBERS)
def test_a_rank_that_still_imports_torch_says_so_and_has_a_status(tmp_path, number):
    process = start(COMMANDS["benchmark"], tmp_path)

    def is_importing():
        return any("importing torch" in log.read_text() for log in tmp_path.glob("base/*/driver_log.txt"))

    until(is_importing, process)
    process.send_signal(number)
    line = line_of(process)
    assert line.startswith(f"interrupted by {number.name} while starting, before anything was measured")
    assert process.returncode == 128 + number
    (file,) = tmp_path.glob("base/*/status.json")
    status = json.loads(file.read_text())
    assert (status["state"], status["signal"], status["message"]) == ("interrupted", number.name, line)
    assert status["exit_code"] == 128 + number


def test_of_several_ranks_the_first_one_speaks(tmp_path):
    rank = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "TMPDIR": str(tmp_path)}
    process = start([*COMMANDS["benchmark"], "--ulysses_degree", "2"], tmp_path, **rank)
    log = tmp_path / f"mlenergy-{process.pid}-rank1.log"
    until(lambda: log.exists() and "importing torch" in log.read_text(), process)
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 128 + signal.SIGUSR1


def test_of_several_nodes_the_first_one_speaks(tmp_path):
    process = start(COMMANDS["launcher"], tmp_path, SLURM_PROCID="1")
    assert process.stdout.readline() == "importing torch\n"
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 128 + signal.SIGUSR1


# A rank that is started by this gets the signal before its first line of Python.
DEAF = """
import os, signal, sys, time
if "RANK" in os.environ:
    os.kill(os.getppid(), signal.SIGUSR1)
    time.sleep(60)
"""


def test_a_rank_that_cannot_hear_yet_is_spoken_for(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(DEAF)
    process = start(COMMANDS["launcher"], tmp_path, PYTHONPATH=str(tmp_path))
    line = line_of(process)
    assert line.startswith("interrupted by SIGUSR1 while starting, before anything was measured")
    assert process.returncode == 128 + signal.SIGUSR1


LOADING = """
import sys, threading
import mlenergy.diffusion.benchmark as benchmark
from mlenergy.diffusion import run
def load(plan, cluster):
    print("loads", flush=True)
    stuck = threading.Lock()
    stuck.acquire()
    stuck.acquire()
run.load_engine = load
sys.exit(benchmark.main())
"""


def test_a_signal_while_loading_says_so(tmp_path):
    process = start([sys.executable, "-c", LOADING], tmp_path, popen=forked.Popen, PYTHONPATH="")

    def is_loading():
        return any("loads" in log.read_text() for log in tmp_path.glob("base/*/driver_log.txt"))

    until(is_loading, process)
    process.send_signal(signal.SIGUSR1)
    line = line_of(process)
    assert line.startswith("interrupted by SIGUSR1 while loading, before anything was measured")
    assert process.returncode == 128 + signal.SIGUSR1
    (file,) = tmp_path.glob("base/*/status.json")
    status = json.loads(file.read_text())
    assert (status["state"], status["signal"], status["message"]) == ("interrupted", "SIGUSR1", line)


def test_the_launcher_without_its_separator_prints_its_usage():
    done = subprocess.run([sys.executable, "-m", LAUNCHER, "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")


@pytest.mark.parametrize(
    ("exitcode", "nodes", "code"),
    [
        (2, "2", 2),
        (0, "2", 0),
        (-15, "2", 1),
        (143, "2", 1),
        (143, "1", 143),
        (-15, "1", 143),
        (-10, "2", 138),
    ],
)
def test_srun_reports_the_highest_exit_code_of_all_nodes(exitcode, nodes, code):
    """So one that is ended because another has failed must not have a higher one."""
    assert exit_code_of(exitcode, {"SLURM_STEP_NUM_NODES": nodes}) == code
    assert exit_code_of(exitcode, {}) == (143 if exitcode == -15 else 138 if exitcode == -10 else exitcode)
