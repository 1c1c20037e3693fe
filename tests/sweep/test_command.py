"""`mlenergy sweep` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
from result_folders import result

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.ledger import Entry, Ledger
from mlenergy.diffusion.results.lock import holder_of, result_lock
from mlenergy.diffusion.sweep import session, todo
from mlenergy.diffusion.sweep.command import main
from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.spec import read_sweep

MLENERGY = Path(sys.executable).with_name("mlenergy")
COMMON = "{model_id: tiny/flux, dataset: bundled, device: cpu, warmup_iters: 0, benchmark_iters: 1}"

# The two steps of a run: it fails first, since its prompts are not there, then it works.
SWEEP = """
folder: sweep
common: {model_id: tiny/flux, device: cpu, warmup_iters: 0, benchmark_iters: 1, dataset: prompts.txt}
grid: {ulysses_degree: [1, 3]}
"""


def _sweep(*words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return forked.run([MLENERGY, "sweep", *words], capture_output=True, text=True, env=environ, timeout=300)


def test_a_mistake_then_fixed_then_skipped(sweep_file: Callable[[str], Path]) -> None:
    file = sweep_file(SWEEP)
    failed = _sweep(str(file))
    assert failed.returncode == 1
    assert "run 2 cannot work: --ulysses_degree 3 does not divide the 4 attention heads" in failed.stdout
    assert "1 failed, 1 pruned" in failed.stdout
    assert "attempt 2" not in failed.stdout  # nobody fixes it in between
    [entry] = [e for e in Ledger.load(Path("sweep/state.json")).entries.values() if e.state == "failed"]
    assert "prompts.txt" in (entry.message or "")

    Path("prompts.txt").write_text("a cat\n")
    fixed = _sweep(str(file))
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr
    assert "2 runs: 1 complete, 1 pruned" in fixed.stdout
    [results] = Path("sweep/results").glob("*/results.json")
    written = results.stat().st_mtime_ns

    skipped = _sweep(str(file))
    assert skipped.returncode == 0
    assert "started" not in skipped.stdout
    assert results.stat().st_mtime_ns == written
    assert "2 runs: 1 complete, 1 pruned" in _sweep(str(file), "--status").stdout
    # A result that no longer exists is made again, whatever the state file says.
    printed = _sweep(str(file), "--print").stdout
    assert f"# run 1 is complete: {results.parent}" in printed
    results.unlink()
    assert "--ulysses_degree 1" in _sweep(str(file), "--print").stdout
    assert not results.exists()
    assert "does not divide" in Path("sweep/sweep.log").read_text()


@pytest.mark.parametrize("popen", [forked.Popen, pytest.param(subprocess.Popen, marks=pytest.mark.full)])
def test_a_stopped_sweep_goes_on(
    sweep_file: Callable[[str], Path], popen: type[subprocess.Popen[bytes]]
) -> None:
    file = sweep_file(f"folder: sweep\ncommon: {COMMON}\nlist: [{{benchmark_iters: 2000}}]")
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = popen([MLENERGY, "sweep", file], env=environ)
    limit = time.monotonic() + 120
    while "measured 1/" not in "".join(log.read_text() for log in Path("sweep/logs").glob("*.log")):
        assert time.monotonic() < limit
        time.sleep(0.1)
    with pytest.raises(UserError, match=r"sweep is being written by process \d+ .*; wait for it"):
        main([str(file)])
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    [entry] = Ledger.load(Path("sweep/state.json")).entries.values()
    assert (entry.state, entry.attempts) == ("interrupted", 1)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(file.parent) not in listed + str(list(forked.running().values()))
    assert "--benchmark_iters 2000" in _sweep(str(file), "--print").stdout


@pytest.mark.parametrize("popen", [forked.Popen, pytest.param(subprocess.Popen, marks=pytest.mark.full)])
def test_a_killed_sweep_leaves_no_run_and_the_next_call_waits_for_it(
    sweep_file: Callable[[str], Path], popen: type[subprocess.Popen[bytes]]
) -> None:
    settings = "list: [{benchmark_iters: 100000, engine: diffusers, save_images: false}]"
    file = sweep_file(f"folder: sweep\ncommon: {COMMON}\n{settings}")
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = popen([MLENERGY, "sweep", file], env=environ)
    limit = time.monotonic() + 120
    while "measured 1/" not in "".join(log.read_text() for log in Path("sweep/logs").glob("*.log")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.1)
    [status] = Path("sweep/results").glob("*/status.json")
    holder = json.loads(status.with_name(".lock").read_text())["pid"]
    os.kill(holder, signal.SIGSTOP)  # it cannot end before the next call has seen it
    process.send_signal(signal.SIGKILL)
    process.wait()
    after = [MLENERGY, "sweep", str(file), "--filter", "benchmark_iters < 10"]
    with popen(after, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as next_call:
        assert next_call.stdout is not None
        first = next_call.stdout.readline().decode()
        assert first.startswith(f"waiting for a run that an earlier call has left (process {holder} ")
        os.kill(holder, signal.SIGCONT)
        _, errors = next_call.communicate(timeout=120)
    assert next_call.returncode == 2 and b"the filters leave no run" in errors
    assert json.loads(status.read_text())["state"] == "interrupted"
    assert json.loads(status.with_name("results_interrupted.json").read_text())["completed"] > 0
    assert holder_of(status.with_name(".lock")) is None


def test_the_state_shown_is_that_on_disk(
    sweep_file: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep_file(f"folder: sweep\ncommon: {COMMON}\ngrid: {{seed: [1, 2]}}")
    main([str(file), "--print"])
    runs = expand(read_sweep(file))
    gone, there = Path("gone"), Path("there")
    entries = {
        run.key: Entry(run.argv, run.label, state=state, folder=str(folder))
        for run, state, folder in zip(runs, ("running", "complete"), (gone, there), strict=True)
    }
    Ledger(Path("sweep/state.json"), entries).save()
    capsys.readouterr()
    assert main([str(file), "--status"]) == 0
    shown = capsys.readouterr().out
    assert "2 runs: 1 interrupted, 1 planned" in shown
    assert "it ended with the process that had started it" in shown and "its result is gone" in shown
    with result_lock(Path("sweep/.lock")):  # a sweep that runs knows best
        main([str(file), "--status"])
    assert "2 runs: 1 complete, 1 running" in capsys.readouterr().out


def test_complete_runs_are_not_planned_again(
    sweep_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep_file(f"folder: sweep\ncommon: {COMMON}\ngrid: {{seed: {list(range(50))}}}")
    main([str(file), "--print"])
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 50
    _pretend_complete(file)
    planned: list[int] = []
    plan_runs = todo.plan_runs

    def counting(spec, runs, where):  # type: ignore[no-untyped-def]
        planned.append(len(runs))
        return plan_runs(spec, runs, where)

    monkeypatch.setattr(todo, "plan_runs", counting)
    # The first time the results are found, from then on the state file knows them.
    for left in (50, 0):
        assert main([str(file)]) == 0
        assert planned.pop() == left
    assert "50 runs: 50 complete" in capsys.readouterr().out
    assert main([str(file), "--no-resume", "--print"]) == 0
    assert capsys.readouterr().out.count("--overwrite_results") == 50


def test_the_results_are_shown_at_the_end(
    sweep_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep_file(f"folder: sweep\ncommon: {COMMON}\ngrid: {{batch_size: [1, 2]}}\nrepeats: 2")
    _pretend_complete(file, lambda job: result(on_cpu=True, seconds=(2.0,), batch_size=1 + job.number // 3))
    assert main([str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 results of 2 set-ups: tiny/flux, ")
    assert [line.split()[-2:] for line in lines[2:4]] == [["batch", "2"], ["batch", "1"]]
    assert lines[2].split()[:3] == ["1", "±", "0"]
    assert lines[2].split()[-3] == "2", "two starts each"
    assert lines[-2] == "4 runs: 4 complete"
    monkeypatch.setattr(session, "_READ_AT_THE_END", 3)
    assert main([str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "4 complete runs: mlenergy show sweep"


def _pretend_complete(file: Path, content_of: Callable[[Job], dict[str, Any]] | None = None) -> None:
    from mlenergy.diffusion.sweep.expand import expand
    from mlenergy.diffusion.sweep.spec import read_sweep
    from mlenergy.diffusion.sweep.todo import plan_runs

    spec = read_sweep(file)
    for job in plan_runs(spec, expand(spec), "here").jobs:
        assert job.folder is not None
        job.folder.mkdir(parents=True)
        content = {"schema_version": 1, "completed": 1, "generation_time": 1.0, "prompts": ["a"]}
        content |= {"generation_results": [{"image": None}], "configuration": {}}
        (job.folder / "results.json").write_text(json.dumps(content_of(job) if content_of else content))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "required: FILE; see mlenergy sweep --help"),
        (["{file}", "--executor", "cloud"], "--executor takes one of local, slurm, not 'cloud'"),
        (["{file}", "--retries", "-1"], "--retries -1 is too small; use 0 or more"),
        (["{file}", "--filter", "nothing > 1"], "there is no option 'nothing'"),
        (["absent.yaml"], "cannot read absent.yaml"),
    ],
)
def test_says_what_is_wrong(sweep_file: Callable[[str], Path], words: list[str], line: str) -> None:
    file = sweep_file(f"common: {COMMON}")
    with pytest.raises(UserError) as error:
        main([word.format(file=file) for word in words])
    assert line in str(error.value)


def test_one_sweep_a_folder(sweep_file: Callable[[str], Path]) -> None:
    file = sweep_file(f"folder: sweep\ncommon: {COMMON}")
    with (
        result_lock(Path("sweep/.lock")),
        pytest.raises(UserError, match="or change folder in the sweep file"),
    ):
        main([str(file)])


def test_imports_no_torch() -> None:
    program = "import mlenergy.diffusion.sweep, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
