"""Runs that end badly, with the real torchrun: what is left in the folder, and with which exit code."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest

from mlenergy.diffusion.config.resolve import plan_from
from mlenergy.diffusion.cost import costs
from mlenergy.diffusion.cost.memory import estimate_memory

SUPPORT = Path(__file__).parents[1] / "support"
MLENERGY = [str(Path(sys.executable).with_name("mlenergy")), "run", "--engine", "diffusers"]
TINY = ["--workload.model_id", "tiny/flux", "--workload.dataset", "bundled", "--workload.height", "64"]
TINY += ["--workload.width", "64", "--workload.inference_steps", "2"]
ENDLESS = ["--ulysses_degree", "2", "--benchmark_iters", "100000", "--no-save_images"]


class Started:
    """A run in the background, in a process group of its own."""

    def __init__(self, base, *options, preexec=None, **environ):
        self.base = base
        words = [*MLENERGY, *options, "workload:t2i", *TINY, "--workload.base_dir", str(base)]
        self.process = forked.Popen(
            words,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=preexec,
        )

    @property
    def folder(self):
        (folder,) = self.base.iterdir()
        return folder

    def status(self):
        return json.loads((self.folder / "status.json").read_text())

    def wait_until_measuring(self):
        """Until the run says that its first window has ended."""
        said = ""
        for line in self.process.stderr:
            said += line
            if line.startswith("measured 1/"):
                return
        raise AssertionError(f"the run never began to measure:\n{said}")

    def workers(self):
        """Process ids of the ranks, in rank order."""
        ranks = {
            int(asked["environ"]["RANK"]): pid
            for pid, asked in forked.running().items()
            if str(self.base) in asked["words"] and "RANK" in asked["environ"]
        }
        return [pid for _, pid in sorted(ranks.items())]

    def finish(self, timeout_s=60):
        begin = time.monotonic()
        out, err = self.process.communicate(timeout=timeout_s)
        return out, err, time.monotonic() - begin


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(*options, **more):
        started.append(Started(tmp_path / "base", *options, **more))
        return started[-1]

    yield begin
    for run in started:
        for pid in run.workers():
            os.kill(pid, signal.SIGKILL)
        run.process.kill()
        run.process.wait()


def error_lines(err):
    return [line for line in err.splitlines() if line.startswith("mlenergy: error:")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_run_with_what_was_measured(start, number):
    run = start(*ENDLESS)
    run.wait_until_measuring()
    # As Slurm does it: every process of the step gets the signal (SIGTERM: the launcher passes it on).
    for pid in run.workers() if number == signal.SIGUSR1 else [run.process.pid]:
        os.kill(pid, number)
    _, err, seconds = run.finish()
    assert run.process.returncode == 128 + number
    assert seconds < 20
    status = run.status()
    assert (status["state"], status["signal"]) == ("interrupted", number.name)
    partial = json.loads((run.folder / "results_interrupted.json").read_text())
    assert partial["completed"] == status["iterations_done"] == len(partial["iterations"]) > 0
    assert not (run.folder / "results.json").exists()
    (line,) = error_lines(err)
    assert "Traceback" not in err
    assert f"interrupted by {number.name}" in line


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_others_and_is_on_record(start, victim):
    run = start(*ENDLESS)
    run.wait_until_measuring()
    os.kill(run.workers()[victim], signal.SIGKILL)
    _, err, seconds = run.finish()
    assert run.process.returncode not in (0, None)
    assert seconds < 20
    assert any(f"rank {victim} (process " in one and "by SIGKILL" in one for one in error_lines(err))
    status = run.status()
    assert status["state"] == "failed"
    assert f"rank {victim}" in status["message"]
    assert "exited" in status["message"]
    assert not (run.folder / "results.json").exists()


def test_a_hang_is_found_and_leaves_the_stacks_of_all_ranks(start):
    run = start(
        *("--ulysses_degree", "2", "--benchmark_iters", "4", "--hang_timeout_s", "12"),
        HANGING_RANK="1",
        PYTHONPATH=str(SUPPORT / "hanging_site"),
    )
    run.finish(timeout_s=240)
    assert run.process.returncode not in (0, None)
    status = run.status()
    assert status["state"] == "failed"
    assert "no progress for" in status["message"]
    for rank in (0, 1):
        assert "Thread" in (run.folder / f"stacks_rank{rank}.txt").read_text()
    assert "sitecustomize.py" in (run.folder / "stacks_rank1.txt").read_text()


@pytest.mark.full
def test_out_of_memory_is_a_line_with_a_way_out(tmp_path, monkeypatch):
    limit_bytes = 2_500_000_000

    def little_memory():
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    words = ["--engine", "diffusers", "workload:t2i", *TINY]
    words += ["--workload.height", "1024", "--workload.width", "1024", "--workload.batch_size", "16"]
    words += ["--workload.inference_steps", "1", "--workload.base_dir", str(tmp_path)]
    # Counted here if nobody has yet: under the limit, and within its time, the run could not.
    monkeypatch.setattr(costs, "subprocess", forked.AS_SUBPROCESS)
    estimate = estimate_memory(plan_from(words, 1, "test")[1])
    done = subprocess.run(
        [sys.executable, "-m", "mlenergy.diffusion.benchmark", *words],
        preexec_fn=little_memory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = error_lines(done.stderr)
    assert "out of memory" in line
    assert "a --workload.batch_size below 16" in line
    assert f"the plan estimated about {estimate.peak_bytes / 2**30:.3g} GiB a rank" in line
    assert "of which a process may take 2.33 GiB" in line
    (folder,) = tmp_path.iterdir()
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "failed"
    assert status["memory"]["kind"] == "host"
    assert status["memory"]["tried"]
    assert status["memory"]["limit_bytes"] == limit_bytes
    assert status["memory"]["estimated_bytes"] == estimate.peak_bytes > limit_bytes
    assert status["memory"]["estimated_stage"] == estimate.peak_stage
    assert status["memory"]["estimate_reason"] is None
    assert "the plan estimated about" in status["message"]
    assert "Traceback" in status["traceback"]
