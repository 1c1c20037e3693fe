"""Signals at every stage of a run under torchrun, on an engine without a model."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest

from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete

PROGRAM = str(Path(__file__).parents[1] / "support" / "fake_engine.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", PROGRAM]
RUN = ["--engine", "diffusers", "--device", "cpu", "--benchmark_iters", "4"]
RUN += ["--use_fbcache", "--cache_threshold", "0.1", "workload:t2i", "--workload.model_id", "tiny/flux"]
RUN += ["--workload.dataset", "bundled", "--workload.batch_size", "2", "--workload.height", "64"]
RUN += ["--workload.width", "64", "--workload.inference_steps", "2"]
TWO = [*TORCHRUN, "--data_parallel_degree", "2", *RUN]
ALONE = [sys.executable, PROGRAM, *RUN]


class Stalled:
    """A run that stays in one stage, in a process group of its own as a shell starts it."""

    def __init__(self, folder, stage, command, grace_s=1):
        self.base, self.mark = folder / "base", folder / "stalled"
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "STALL": stage, "STALLED": str(self.mark)}
        environ["GRACE_S"] = str(grace_s)
        self.process = forked.Popen(
            [*command, "--workload.base_dir", str(self.base)],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        end = time.monotonic() + 120
        while not self.mark.exists():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end, "the stage was never reached"
            time.sleep(0.05)

    @property
    def folder(self):
        (folder,) = self.base.iterdir()
        return folder

    def read(self, name):
        return json.loads((self.folder / name).read_text())

    def ranks(self):
        """Process ids of those that have not ended."""
        return [
            pid
            for pid, asked in forked.running().items()
            if str(self.base) in asked["words"] and "STALL" in asked["environ"] and pid != self.process.pid
        ]

    def signal(self, number=signal.SIGINT):
        """To the whole group, as a terminal does it on Ctrl-C."""
        os.killpg(self.process.pid, number)

    def lines(self):
        """The program's own lines, once all is over."""
        _, err = self.process.communicate(timeout=60)
        return [line for line in err.splitlines() if line.startswith("mlenergy: error:")]


@pytest.fixture
def stalled(tmp_path):
    begun = []

    def begin(stage, *, command=TWO, **more):
        begun.append(Stalled(tmp_path, stage, command, **more))
        return begun[-1]

    yield begin
    for run in begun:
        for pid in [run.process.pid, *run.ranks()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("stage", "number", "said"),
    [
        ("starting", signal.SIGINT, "while starting, before anything was measured: nothing is saved"),
        ("loading", signal.SIGINT, "while loading, before anything was measured: nothing is saved"),
        ("warmup", signal.SIGTERM, "while warming up, before anything was measured: nothing is saved"),
        ("window", signal.SIGHUP, "of 1 windows the durations are in "),
        ("saving", signal.SIGINT, "while saving (it did not end within 1 s); the measured numbers are in "),
        ("effects", signal.SIGINT, "while looking at the effects of the optimizations (it did not end "),
    ],
)
def test_a_signal_ends_every_stage_in_one_line(stalled, stage, number, said):
    run = stalled(stage)
    run.signal(number)
    (line,) = run.lines()
    assert f"interrupted by {number.name} " in line and said in line
    status = run.read("status.json")
    assert (status["state"], status["signal"]) == ("interrupted", number.name)
    assert status["exit_code"] == 128 + number
    assert not is_complete(RunPaths(run.folder, ""))
    if stage == "saving":
        kept = run.read("results_interrupted.json")
        assert kept["completed"] == 8 and len(kept["iterations"]) == 4
    if stage == "effects":
        assert run.read("results.json")["completed"] == 8
        assert "interrupted by SIGINT" in run.read("results.json")["effects_reason"]


@pytest.mark.parametrize("command", [TWO, ALONE], ids=["torchrun", "one process"])
def test_a_second_ctrl_c_does_not_wait_for_the_window(stalled, command):
    run = stalled("window", command=command, grace_s=60)
    run.signal()
    time.sleep(1)
    assert run.process.poll() is None  # one press waits for the window
    end = time.monotonic() + 30  # half of the grace
    while run.process.poll() is None and time.monotonic() < end:
        # Again and again: on a busy machine two presses may arrive as one, or with what torchrun passes on.
        with contextlib.suppress(ProcessLookupError):
            run.signal()
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.communicate(timeout=2)
    assert run.process.poll() is not None
    wait_until(lambda: not run.ranks())
    status = run.read("status.json")
    assert (status["state"], status["exit_code"]) == ("interrupted", 130)


def wait_until(is_true, limit_s=60):  # 20 s for the window that is running, and the saving
    end = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_killed_launcher_takes_its_ranks_along_and_they_keep_what_they_have(stalled):
    run = stalled("window passed", command=(*TWO, "--benchmark_iters", "100000"))
    os.kill(run.process.pid, signal.SIGKILL)
    wait_until(lambda: not run.ranks())
    wait_until(lambda: run.read("status.json")["state"] == "interrupted")
    assert run.read("results_interrupted.json")["completed"] > 0
