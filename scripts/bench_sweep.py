"""What a sweep costs beyond its runs: skipping 1,000 complete ones, and starting short ones.

    python scripts/bench_sweep.py

The limits are 5 s for the first and 1 s a run for the second. It writes into a temporary folder only.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.ledger import Entry, Ledger
from mlenergy.diffusion.executors.local import LocalExecutor, Slots
from mlenergy.diffusion.sweep.command import main
from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.spec import read_sweep
from mlenergy.diffusion.sweep.todo import plan_runs

RUNS = 1000
IMAGES = 32  # that each result names
SHORT_RUNS = 50


def bench() -> int:
    """Print both figures; 1 where one is beyond its limit."""
    file = Path("bench.yaml")
    common = "folder: out\ncommon: {model_id: tiny/flux, device: cpu, dataset: bundled}\n"
    file.write_text(f"{common}grid: {{seed: {list(range(RUNS))}}}")
    spec = read_sweep(file)
    begin = time.perf_counter()
    jobs = plan_runs(spec, expand(spec), "here").jobs
    print(f"planning {RUNS} runs for the first time: {time.perf_counter() - begin:.2f} s")
    for job in jobs:
        _pretend_complete(job)
    for when in ("found in their folders", "known from the state file"):
        begin = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            main([str(file)])
        skipping_s = time.perf_counter() - begin
        print(f"skipping {RUNS} complete runs, {when}: {skipping_s:.2f} s")
    overhead_s = _overhead_s(jobs[:SHORT_RUNS])
    print(f"overhead of a run, of {SHORT_RUNS}: {overhead_s:.3f} s")
    return int(skipping_s > 5 or overhead_s > 1)


def _pretend_complete(job: Job) -> None:
    assert job.folder is not None
    images = job.folder / "image_outputs"
    images.mkdir(parents=True)
    names = [f"image_outputs/{number}.png" for number in range(IMAGES)]
    for name in names:
        (job.folder / name).write_bytes(b"png")
    content = {"schema_version": 1, "completed": IMAGES, "generation_time": 1.0, "configuration": {}}
    content |= {
        "prompts": ["a prompt " * 20] * IMAGES,
        "generation_results": [{"image": name} for name in names],
    }
    (job.folder / "results.json").write_text(json.dumps(content, indent=2))


def _overhead_s(jobs: list[Job]) -> float:
    """Seconds a run beyond a process that does nothing."""
    ledger = Ledger(Path("ledger.json"), {job.key: Entry(job.argv, "") for job in jobs})
    command = [sys.executable, "-c", "pass"]
    executor = LocalExecutor(ledger, Slots(unnamed=1), Path("logs"), 0, lambda job: True, lambda job: command)
    begin = time.perf_counter()
    executor.run(jobs)
    total_s = time.perf_counter() - begin
    alone_s = sum(e.duration_s or 0.0 for e in ledger.entries.values())
    return (total_s - alone_s) / len(jobs) + 0.1  # a run's end is noticed up to a tenth of a second late


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.exit(bench())
