"""The sbatch files of launch/ on a real Slurm of two nodes, with the real benchmark."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from local_slurm import NODES, LocalSlurm

pytestmark = [pytest.mark.slurm, pytest.mark.full]

# How long a test waits for a run's first measured iteration, on a machine that has other work.
_PATIENCE_S = 120

LAUNCH = Path(__file__).parents[2] / "launch"
_MODEL = ["--workload.model_id", "tiny/flux", "--workload.dataset", "bundled"]


def ulysses_2(iterations: int, steps: int = 4) -> list[str]:
    """Options of a run on two processes."""
    run = ["--ulysses_degree", "2", "--device", "cpu", "--benchmark_iters", str(iterations)]
    return [
        *run,
        "workload:t2i",
        *_MODEL,
        "--workload.base_dir",
        "results",
        "--workload.inference_steps",
        str(steps),
    ]


# As in a shell in which the environment is active.
ENVIRON = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def submit(slurm: LocalSlurm, tmp_path: Path) -> Callable[..., str]:
    """sbatch from the test's own folder."""

    def sbatch(*words: str) -> str:
        return slurm.submit(words, cwd=tmp_path, env=ENVIRON)

    return sbatch


def results_in(folder: Path) -> list[dict[str, Any]]:
    """Every whole result below a folder."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*/results.json"))]


def log_of(folder: Path, job: str) -> str:
    return "\n".join(file.read_text() for file in folder.glob(f"*{job}*.out"))


def test_one_node(slurm: LocalSlurm, submit: Callable[..., str], tmp_path: Path) -> None:
    job = submit("--gpus-per-node=2", str(LAUNCH / "slurm_single_node.sbatch"), *ulysses_2(2))
    assert slurm.wait(job) == ["COMPLETED"], log_of(tmp_path, job)
    [result] = results_in(tmp_path / "results")
    assert result["completed"] == 2
    assert result["configuration"]["parallel"]["world_size"] == 2


def test_two_nodes(slurm: LocalSlurm, submit: Callable[..., str], tmp_path: Path) -> None:
    job = submit("--gpus-per-node=1", str(LAUNCH / "slurm_multi_node.sbatch"), *ulysses_2(2))
    assert slurm.wait(job) == ["COMPLETED"], log_of(tmp_path, job)
    [result] = results_in(tmp_path / "results")
    assert result["completed"] == 2
    assert {node["hostname"] for node in result["environment"]["nodes"]} == {"n0", "n1"}


def test_an_array_of_four(slurm: LocalSlurm, submit: Callable[..., str], tmp_path: Path) -> None:
    lines = [f"--workload.batch_size {size} --workload.prompt_prefix 'a \"big\" '" for size in (1, 2, 3, 4)]
    (tmp_path / "runs.txt").write_text("".join(f"workload:t2i {line}\n" for line in lines))
    common = ["--device", "cpu", "--warmup_iters", "0", "--benchmark_iters", "1", *_MODEL]
    script = str(LAUNCH / "slurm_array.sbatch")
    job = submit(
        "--array=1-4%2", "--gpus-per-node=1", script, "runs.txt", *common, "--workload.base_dir", "results"
    )
    assert slurm.wait(job) == ["COMPLETED"] * 4, log_of(tmp_path, job)
    results = results_in(tmp_path / "results")
    assert sorted(result["batch_size"] for result in results) == [1, 2, 3, 4]
    assert {result["configuration"]["prompt_prefix"] for result in results} == {'a "big" '}
    assert len(list(tmp_path.glob(f"slurm-*-{job}_*.out"))) == 4


def test_an_array_task_without_a_line(slurm: LocalSlurm, submit: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "runs.txt").write_text("workload:t2i\n")
    job = submit("--array=2", str(LAUNCH / "slurm_array.sbatch"), "runs.txt")
    assert slurm.wait(job) == ["FAILED"]
    assert log_of(tmp_path, job).endswith("use --array=1-1\n")


def test_a_requeue_in_the_middle_ends_complete(
    slurm: LocalSlurm, submit: Callable[..., str], tmp_path: Path
) -> None:
    job = submit("--gpus-per-node=2", str(LAUNCH / "slurm_single_node.sbatch"), *ulysses_2(8, steps=20))
    wait_for_text(slurm, tmp_path, job, "measured 1/8")
    assert not results_in(tmp_path / "results")
    assert slurm.run(["scontrol", "requeue", job]).returncode == 0
    assert slurm.wait(job) == ["COMPLETED"], log_of(tmp_path, job)
    assert slurm.show(job)["Restarts"] == "1"
    [result] = results_in(tmp_path / "results")
    assert result["completed"] == 8
    assert log_of(tmp_path, job).count("measured 1/8") == 2  # the first attempt's words are kept


def test_the_signal_before_the_time_limit_ends_interrupted(
    slurm: LocalSlurm, submit: Callable[..., str], tmp_path: Path
) -> None:
    """Sent as the controller sends it, to all steps; a time limit would fall anywhere, also into loading."""
    job = submit("--gpus-per-node=1", str(LAUNCH / "slurm_multi_node.sbatch"), *ulysses_2(99999))
    wait_for_text(slurm, tmp_path, job, "measured 1/99999")
    assert slurm.run(["scancel", "--signal=USR1", job]).returncode == 0
    assert slurm.wait(job) == ["FAILED"], log_of(tmp_path, job)
    assert "mlenergy: error: interrupted by SIGUSR1" in log_of(tmp_path, job)
    [file] = (tmp_path / "results").glob("*/status.json")
    status = json.loads(file.read_text())
    assert (status["state"], status["signal"]) == ("interrupted", "SIGUSR1")
    partial = json.loads((file.parent / "results_interrupted.json").read_text())
    assert partial["completed"] == status["iterations_done"] > 0
    assert not results_in(tmp_path / "results")


def test_a_time_limit_below_the_signals_lead_is_told_at_once(
    slurm: LocalSlurm, submit: Callable[..., str], tmp_path: Path
) -> None:
    """Whenever the signal comes then, while starting, loading or measuring, there is one line, not a kill."""
    job = submit("--gpus-per-node=1", "--time=1", str(LAUNCH / "slurm_multi_node.sbatch"), *ulysses_2(99999))
    assert slurm.wait(job) == ["FAILED"], log_of(tmp_path, job)
    log = log_of(tmp_path, job)
    (warning,) = [
        line for line in log.splitlines() if line.startswith("mlenergy: warning: this job ends in ")
    ]
    assert warning.endswith("give it more --time")
    (line,) = [line for line in log.splitlines() if line.startswith("mlenergy: error: ")]
    assert line.startswith("mlenergy: error: interrupted by SIGUSR1")
    assert "Traceback" not in log


def test_a_mistake_is_one_line_in_the_job_too(
    slurm: LocalSlurm, submit: Callable[..., str], tmp_path: Path
) -> None:
    words = [*ulysses_2(1), "--workload.width", "100"]
    job = submit("--gpus-per-node=1", str(LAUNCH / "slurm_multi_node.sbatch"), *words)
    assert slurm.wait(job) == ["FAILED"]
    assert slurm.show(job)["ExitCode"] == "2:0"
    lines = [line for line in log_of(tmp_path, job).splitlines() if not line.startswith("srun: ")]
    assert lines[0] == "starting", lines
    # The other node's launcher may find its partner gone before srun ends it, and says so in a line.
    assert all("lost each other" in line for line in lines[2:]), lines
    assert lines[1].startswith("mlenergy: error: ") and "not a multiple of 16" in lines[1]


@pytest.mark.parametrize("script", sorted(file.name for file in LAUNCH.glob("*.sbatch")))
def test_sbatch_reads_the_signal_lines(slurm: LocalSlurm, script: str) -> None:
    done = slurm.run(["sbatch", "--verbose", "--test-only", str(LAUNCH / script)])
    options = dict(re.findall(r"^sbatch: (\w+)\s*: (.*)$", done.stderr, re.MULTILINE))
    assert options["signal"] == "USR1@120", done.stderr


def test_scancel_leaves_nothing_running(
    slurm: LocalSlurm, submit: Callable[..., str], tmp_path: Path
) -> None:
    job = submit("--gpus-per-node=1", str(LAUNCH / "slurm_multi_node.sbatch"), *ulysses_2(999))
    wait_for_text(slurm, tmp_path, job, "measured 1/999")
    assert slurm.run(["scancel", job]).returncode == 0
    assert slurm.wait(job) == ["CANCELLED"]
    assert not results_in(tmp_path / "results")
    limit = time.monotonic() + 20  # KillWait, and a little
    while left := [line for node in NODES for line in slurm.processes(node) if "mlenergy" in line]:
        assert time.monotonic() < limit, left
        time.sleep(0.25)


def wait_for_text(slurm: LocalSlurm, folder: Path, job: str, text: str) -> None:
    """Until the job's output holds a text."""
    limit = time.monotonic() + _PATIENCE_S
    while text not in log_of(folder, job):
        assert time.monotonic() < limit, log_of(folder, job)
        assert slurm.states(job) in (["PENDING"], ["RUNNING"]), log_of(folder, job)
        time.sleep(0.25)
