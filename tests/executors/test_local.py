"""The local executor on real processes; small scripts stand in for benchmarks on GPUs."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.ledger import Entry, Ledger
from mlenergy.diffusion.executors.local import LocalExecutor, Slots, Stopped

# Notes when it ran and on what; waits until it is told to end or its time is over.
STAND_IN = """
import json, os, pathlib, signal, sys, time
out, seconds, code = pathlib.Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
begin = time.monotonic()
print("working", flush=True)
(out / "started").touch()
time.sleep(seconds)
gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
(out / "ran.json").write_text(json.dumps([begin, time.monotonic(), gpus]))
if code: print("mlenergy: error: it broke; fix it", file=sys.stderr)
sys.exit(code)
"""

_SAYS_INTERRUPTED = "import sys; print('mlenergy: error: interrupted by SIGUSR1', file=sys.stderr)"


class Bench:
    """Jobs, the executor that runs them, and what each of them noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: list[Job] = []
        self.ledger = Ledger(folder / "state.json")
        self._words: dict[str, Sequence[str]] = {}

    def add(self, processes: int, seconds: float = 0.0, code: int = 0, command: str = STAND_IN) -> Job:
        number = len(self.jobs) + 1
        folder = self.folder / f"run-{number}"
        folder.mkdir()
        argv = ("workload:t2i", "--workload.model_id", f"m{number}")
        job = Job(argv, f"run {number}", number, processes, "cuda", 1.0, folder)
        self.jobs.append(job)
        self.ledger.entries[job.key] = Entry(job.argv, job.label, processes)
        self._words[job.key] = [sys.executable, "-c", command, str(folder), str(seconds), str(code)]
        return job

    def executor(self, slots: Slots, retries: int = 1) -> LocalExecutor:
        return LocalExecutor(
            ledger=self.ledger,
            slots=slots,
            logs=self.folder / "logs",
            retries=retries,
            is_done=lambda job: job.folder is not None and (job.folder / "ran.json").exists(),
            command=lambda job: self._words[job.key],
        )

    def ran(self, job: Job) -> tuple[float, float, str]:
        assert job.folder is not None
        return tuple(json.loads((job.folder / "ran.json").read_text()))

    def entry(self, job: Job) -> Entry:
        """The record in the file, not the one in memory."""
        return Ledger.load(self.ledger.file).entries[job.key]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _overlap(one: tuple[float, float, str], other: tuple[float, float, str]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_packs_gpus_without_sharing_any(bench: Bench) -> None:
    large = bench.add(3, 0.3)
    waits = bench.add(2, 0.3)  # does not fit beside the first ...
    small = bench.add(1, 0.3)  # ... but this one does
    bench.executor(Slots(["0", "1", "GPU-c", "3"])).run(bench.jobs)
    ran = {job.number: bench.ran(job) for job in bench.jobs}
    assert [ran[n][2] for n in (1, 3)] == ["0,1,GPU-c", "3"]
    assert _overlap(ran[1], ran[3])
    for one in bench.jobs:
        for other in bench.jobs:
            if one is not other and _overlap(bench.ran(one), bench.ran(other)):
                assert not set(bench.ran(one)[2].split(",")) & set(bench.ran(other)[2].split(","))
    assert all(bench.entry(job).state == "complete" for job in (large, waits, small))


def test_on_a_cpu_one_run_at_a_time(bench: Bench) -> None:
    for _ in range(3):
        bench.add(1, 0.1)
    bench.executor(Slots(unnamed=2, alone=True)).run(bench.jobs)
    ran = [bench.ran(job) for job in bench.jobs]
    assert not _overlap(ran[0], ran[1])
    assert not _overlap(ran[1], ran[2])
    assert ran[0][2] == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_tries_a_crash_again_but_not_a_mistake(bench: Bench) -> None:
    crash, mistake, good = bench.add(1, code=1), bench.add(1, code=2), bench.add(1)
    bench.executor(Slots(unnamed=1), retries=2).run(bench.jobs)
    assert [bench.entry(job).attempts for job in (crash, mistake, good)] == [3, 1, 1]
    entry = bench.entry(crash)
    assert (entry.state, entry.exit_code, entry.message) == ("failed", 1, "it broke; fix it")
    assert len(list((bench.folder / "logs").glob("0001-*"))) == 3


def test_exit_code_0_without_a_result_is_a_failure(bench: Bench) -> None:
    job = bench.add(1, command="print('nothing')")
    bench.executor(Slots(unnamed=1), retries=0).run(bench.jobs)
    assert bench.entry(job).state == "failed"
    assert bench.entry(job).message == "it ended with exit code 0 but left no complete result"


def test_a_run_that_somebody_interrupts_is_not_tried_again(bench: Bench) -> None:
    by_code, by_word = bench.add(1, code=143), bench.add(1, command=f"{_SAYS_INTERRUPTED}; sys.exit(1)")
    bench.executor(Slots(unnamed=1)).run(bench.jobs)
    for job in (by_code, by_word):
        assert (bench.entry(job).state, bench.entry(job).attempts) == ("interrupted", 1)


def _writes_status(code: int, planned: str, **status: object) -> str:
    """A run that ends as its status.json says, and prints something else."""
    content = {"planned": planned, "exit_code": code, **status}
    return (
        "import pathlib, sys; print('mlenergy: error: a line of the log'); "
        f"pathlib.Path(sys.argv[1], 'status.json').write_text({json.dumps(content)!r}); sys.exit({code})"
    )


@pytest.mark.parametrize(
    ("code", "status", "state", "message"),
    [
        (2, "failed", "failed", "of the status"),
        (1, "failed", "failed", "of the status; see {folder}/status.json"),
        (2, "effects_failed", "failed", "of the status"),
        (143, "interrupted", "interrupted", "of the status"),
    ],
)
def test_a_runs_status_says_how_it_ended(
    bench: Bench, code: int, status: str, state: str, message: str
) -> None:
    command = _writes_status(code, "2100-01-01T00:00:00+00:00", state=status, message="of the status")
    job = bench.add(1, command=command)
    bench.executor(Slots(unnamed=1), retries=0).run(bench.jobs)
    entry = bench.entry(job)
    assert (entry.state, entry.message) == (state, message.format(folder=job.folder))


@pytest.mark.parametrize(
    ("planned", "state"),
    [("2000-01-01T00:00:00+00:00", "failed"), ("2100-01-01T00:00:00+00:00", "running")],
    ids=["of an earlier attempt", "never finished"],
)
def test_a_log_tells_where_no_status_does(bench: Bench, planned: str, state: str) -> None:
    job = bench.add(1, command=_writes_status(1, planned, state=state, message="of the status"))
    bench.executor(Slots(unnamed=1), retries=0).run(bench.jobs)
    assert bench.entry(job).message == "a line of the log"


def test_a_retry_that_works_ends_complete(bench: Bench) -> None:
    fails_once = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); "
    fails_once += (
        "(p / 'ran.json').touch() if (p / 'tried').exists() else ((p / 'tried').touch(), sys.exit(1))"
    )
    job = bench.add(1, command=fails_once)
    bench.executor(Slots(unnamed=1)).run(bench.jobs)
    assert (bench.entry(job).state, bench.entry(job).attempts) == ("complete", 2)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_runs_and_is_recorded(bench: Bench, stop: signal.Signals) -> None:
    running, waiting = bench.add(1, seconds=60), bench.add(1, seconds=60)
    assert running.folder is not None
    started = running.folder / "started"
    threading.Thread(target=_signal_when, args=(started.exists, [stop])).start()
    with pytest.raises(Stopped, match=stop.name):
        bench.executor(Slots(unnamed=1)).run(bench.jobs)
    assert bench.entry(running).state == "interrupted"
    assert bench.entry(running).exit_code == 9  # it was asked, not killed
    assert waiting.key in bench.ledger.entries
    assert bench.ledger.entries[waiting.key].state == "planned"


def test_a_second_signal_does_not_wait(bench: Bench) -> None:
    deaf = "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    deaf += "(pathlib.Path(sys.argv[1]) / 'started').touch(); time.sleep(60)"
    job = bench.add(1, command=deaf)
    assert job.folder is not None
    started = job.folder / "started"
    stops = [signal.SIGINT, signal.SIGINT]
    threading.Thread(target=_signal_when, args=(started.exists, stops)).start()
    begin = time.monotonic()
    with pytest.raises(Stopped):
        bench.executor(Slots(unnamed=1)).run(bench.jobs)
    assert time.monotonic() - begin < 20
    assert bench.entry(job).exit_code == -signal.SIGKILL


def _signal_when(ready: Callable[[], bool], signals: Sequence[signal.Signals]) -> None:
    while not ready():
        time.sleep(0.02)
    for one in signals:
        time.sleep(0.3)
        os.kill(os.getpid(), one)
