"""`mlenergy sweep --executor slurm` against a real Slurm."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from local_slurm import LocalSlurm

pytestmark = [pytest.mark.slurm, pytest.mark.full]

SWEEP = """
folder: "my sweep"
common: {model_id: tiny/flux, dataset: bundled, device: cpu, benchmark_iters: 1, base_dir: results}
list:
  - {ulysses_degree: 1}
  - {ulysses_degree: 2}
  - {dataset: nothing.txt}
  - {ulysses_degree: 3}
retries: 0
slurm: {processes_per_node: 1, options: {time: "00:05:00"}}
"""


def test_submit_ask_and_go_on(slurm: LocalSlurm, tmp_path: Path) -> None:
    bin_folder = Path(sys.executable).parent
    environ = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    (tmp_path / "s.yaml").write_text(SWEEP)

    def sweep(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = slurm.run(["mlenergy", "sweep", "s.yaml", *words], cwd=tmp_path, env=environ)
        assert done.returncode == code, done.stderr
        return done

    submitted = sweep("--executor", "slurm").stdout
    assert "run 4 cannot work: --ulysses_degree 3 does not divide the 4 attention heads" in submitted
    found = re.search(r"submitted 3 runs as job (\d+), (\d+)", submitted)
    assert found, submitted
    assert "3 submitted, 1 pruned" in submitted
    # What is in the queue is not submitted twice.
    assert "nothing to submit" in sweep("--executor", "slurm").stdout
    states = [state for job in found.groups() for state in slurm.wait(job)]
    logs = "\n".join(file.read_text() for file in (tmp_path / "my sweep/slurm/001").glob("*.log"))
    assert sorted(states) == ["COMPLETED", "COMPLETED", "FAILED"], logs
    shown = sweep("--status").stdout
    assert "4 runs: 2 complete, 1 failed, 1 pruned" in shown
    assert "nothing.txt" in next(line for line in shown.splitlines() if "failed" in line)
    results = [json.loads(file.read_text()) for file in tmp_path.glob("results/*/results.json")]
    # One run's two processes were on two nodes.
    assert sorted(len(result["environment"]["nodes"]) for result in results) == [1, 2]
    held = sweep("--executor", "slurm", code=1).stdout
    assert "run 3 was tried once and failed; --retries 1 submits it again" in held
    assert "nothing to submit" in held
    assert "2 complete, 1 failed, 1 pruned" in held
    # Going on means the failed run only.
    printed = sweep("--executor", "slurm", "--retries", "1", "--print").stdout
    assert [line for line in printed.splitlines() if line.startswith("#SBATCH --array")] == [
        "#SBATCH --array=1-1"
    ]
    assert "nothing.txt" in printed
