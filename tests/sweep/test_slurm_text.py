"""The text that the slurm executor would submit; tests/slurm submits it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.slurm import (
    ARRAY_LIMIT,
    arrays_of,
    lines_text,
    reason_against,
    sbatch_text,
)
from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.spec import SweepSpec
from mlenergy.diffusion.sweep.todo import plan_runs

Make = Callable[[str], SweepSpec]
Golden = Callable[[str, str], None]

SWEEP = """
common: {model_id: black-forest-labs/FLUX.1-dev, prompt_prefix: "-a 'bright' \\"photo\\" of "}
grid:
  "ulysses_degree, ring_degree": [[1, 1], [4, 1], [8, 1], [8, 2]]
  batch_size: [1, 8]
slurm:
  processes_per_node: 8
  max_parallel: 3
  options: {partition: gpu, time: "00:30:00", exclusive: true, requeue: false}
  setup: |
    module load cuda
    source "$HOME/mlenergy/.venv/bin/activate"
"""


def _jobs(spec: SweepSpec) -> list[Job]:
    todo = plan_runs(spec, expand(spec), "cluster")
    assert not todo.pruned
    return todo.jobs


@pytest.mark.parametrize("name", ["1x1", "1x8", "2x8"])
def test_the_sbatch_file(sweep_spec: Make, golden: Golden, name: str) -> None:
    spec = sweep_spec(SWEEP)
    array = next(a for a in arrays_of(_jobs(spec), spec.slurm) if a.name == name)
    folder = Path("/shared/my sweep/slurm/001")
    golden(f"{name}.sbatch", sbatch_text(array, spec.slurm, "flux", folder))
    golden(f"{name}.txt", lines_text(array, ["--overwrite_results"]))


def test_a_cpu_partition_in_a_container(sweep_spec: Make, golden: Golden) -> None:
    text = SWEEP.replace("max_parallel: 3", "gpus: false\n  container: apptainer exec my.sif")
    spec = sweep_spec(text)
    array = arrays_of(_jobs(spec), spec.slurm)[-1]
    golden("cpu-2x8.sbatch", sbatch_text(array, spec.slurm, "flux", Path("/shared/slurm/001")))


def test_bash_reads_each_line_back(sweep_spec: Make, tmp_path: Path) -> None:
    spec = sweep_spec(SWEEP)
    array = arrays_of(_jobs(spec), spec.slurm)[0]
    script = sbatch_text(array, spec.slurm, "flux", tmp_path)
    reading = next(line for line in script.splitlines() if line.startswith("mapfile"))
    (tmp_path / f"{array.name}.txt").write_text(lines_text(array))
    for task, job in enumerate(array.jobs, 1):
        told = subprocess.run(
            ["bash", "-c", f"{reading}\nprintf '%s\\0' \"${{words[@]}}\""],
            env={**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "files": str(tmp_path / array.name)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.split("\0")[:-1] == list(job.argv)


def test_shellcheck_finds_nothing(sweep_spec: Make, tmp_path: Path, shellcheck: str) -> None:
    spec = sweep_spec(SWEEP)
    for array in arrays_of(_jobs(spec), spec.slurm):
        file = tmp_path / "script.sh"
        file.write_text(sbatch_text(array, spec.slurm, "flux", tmp_path))
        # 1091: it does not follow the user's own `source`.
        done = subprocess.run([shellcheck, "--exclude=SC1091", str(file)], capture_output=True, text=True)
        assert not done.stdout


def test_what_cannot_be_submitted(sweep_spec: Make) -> None:
    spec = sweep_spec(SWEEP.replace("processes_per_node: 8", "processes_per_node: 3"))
    reasons = [reason_against(job, spec.slurm) for job in _jobs(spec)]
    assert [reason is None for reason in reasons] == [True] * 2 + [False] * 6
    assert "16 processes do not fill nodes of 3; use degrees that make a multiple of 3" in str(reasons[-1])
    lines = sweep_spec(
        'common: {model_id: black-forest-labs/FLUX.1-dev, negative_prompt: null, prompt_prefix: "a\\nb"}'
    )
    assert "write one line" in str(reason_against(_jobs(lines)[0], lines.slurm))


def test_no_array_is_longer_than_slurm_takes(sweep_spec: Make) -> None:
    spec = sweep_spec("common: {model_id: tiny/flux, device: cpu}")
    [job] = _jobs(spec)
    arrays = arrays_of([job] * (ARRAY_LIMIT + 1), spec.slurm)
    assert [(array.name, len(array.jobs)) for array in arrays] == [("1x1-1", ARRAY_LIMIT), ("1x1-2", 1)]
