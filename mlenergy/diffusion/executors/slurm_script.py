"""The sbatch file of one array: runs that need the same nodes. Text only; nothing is submitted here."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.start import SIGNALS
from mlenergy.diffusion.sweep.spec import SlurmSettings

ARRAY_LIMIT = 1000  # Slurm's MaxArraySize is 1001 by default, and tasks count from 1 here
_DEFAULTS = {"time": "01:00:00", "signal": "USR1@120"}


@dataclass(frozen=True)
class Shape:
    """What a run needs: so many nodes, and so many processes on each."""

    nodes: int
    processes: int

    @property
    def name(self) -> str:
        """`2x8`: part of file names and of the job's name."""
        return f"{self.nodes}x{self.processes}"


@dataclass(frozen=True)
class Array:
    """One array: task N runs job N, counted from 1."""

    name: str
    shape: Shape
    jobs: tuple[Job, ...]


def why_not(job: Job, settings: SlurmSettings) -> str | None:
    """Why a run cannot be submitted, or None: beyond one node it has to fill whole ones."""
    per_node = settings.processes_per_node
    if any("\n" in word for word in job.run.argv):
        return "an option's text has several lines, and a run is one line of the array's file; write one line"
    if job.processes <= per_node or job.processes % per_node == 0:
        return None
    return (
        f"{job.processes} processes do not fill nodes of {per_node}; use degrees that make a multiple of "
        f"{per_node}, or another slurm: processes_per_node"
    )


def shape_of(job: Job, settings: SlurmSettings) -> Shape:
    """The nodes of a run that can be submitted."""
    per_node = settings.processes_per_node
    if job.processes <= per_node:
        return Shape(1, job.processes)
    return Shape(job.processes // per_node, per_node)


def arrays_of(jobs: Sequence[Job], settings: SlurmSettings) -> list[Array]:
    """Runs of one shape make an array, or several where they are many; their order is kept."""
    by_shape: dict[Shape, list[Job]] = {}
    for job in jobs:
        by_shape.setdefault(shape_of(job, settings), []).append(job)
    arrays = []
    for shape, members in by_shape.items():
        chunks = [members[i : i + ARRAY_LIMIT] for i in range(0, len(members), ARRAY_LIMIT)]
        for number, chunk in enumerate(chunks, 1):
            name = shape.name if len(chunks) == 1 else f"{shape.name}-{number}"
            arrays.append(Array(name, shape, tuple(chunk)))
    return arrays


def lines_text(array: Array, extra: Sequence[str] = ()) -> str:
    """The file whose line N task N runs; quoted for xargs."""
    return "".join(f"{shlex.join([*extra, *job.run.argv])}\n" for job in array.jobs)


def sbatch_text(array: Array, settings: SlurmSettings, sweep_name: str, folder: Path) -> str:
    """The sbatch file.

    Args:
        array: its runs.
        settings: the sweep file's slurm section.
        sweep_name: first part of the job's name.
        folder: where the file, its lines, logs and the tasks' exit codes are.
    """
    head = [f"#SBATCH {option}" for option in _options(array, settings, sweep_name, folder)]
    return "\n".join(["#!/usr/bin/env bash", *head, *_body(array, settings, folder)]) + "\n"


def record_file(folder: Path, array: Array, task: int) -> Path:
    """Where a task leaves its exit code."""
    return folder / f"{array.name}-{task}.ended"


def _options(array: Array, settings: SlurmSettings, sweep_name: str, folder: Path) -> list[str]:
    at_most = f"%{settings.max_parallel}" if settings.max_parallel else ""
    needed = (
        f"--gpus-per-node={array.shape.processes}"
        if settings.gpus
        else f"--cpus-per-task={array.shape.processes}"
    )
    own = {**_DEFAULTS, **settings.options}
    return [
        f"--job-name={sweep_name}-{array.name}",
        f"--array=1-{len(array.jobs)}{at_most}",
        f"--nodes={array.shape.nodes}",
        "--ntasks-per-node=1",
        needed,
        f'--output="{folder}/{array.name}-%a.log"',
        "--open-mode=append",
        "--requeue",
        *(
            f"--{name}" if value is True else f"--{name}={value}"
            for name, value in own.items()
            if value is not False
        ),
    ]


def _body(array: Array, settings: SlurmSettings, folder: Path) -> list[str]:
    container = f"{settings.container} " if settings.container else ""
    python = f"{container}python3 -c"
    if array.shape.nodes == 1:
        meeting, srun, address = "--standalone --local_addr=127.0.0.1", "srun", []
    else:
        meeting = '--nnodes="$SLURM_NNODES" --rdzv_id="$SLURM_JOB_ID" --rdzv_backend=c10d \\\n'
        meeting += '  --rdzv_endpoint="$head:$port"'
        srun = "srun --kill-on-bad-exit=1"
        find = 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
        address = [
            'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)',
            f"port=$({python} '{find}')",
        ]
    files = shlex.quote(str(folder / array.name))
    return [
        "set -euo pipefail",
        *settings.setup,
        'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"',
        "if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi",
        f"files={files}",
        'rm -f "$files-$SLURM_ARRAY_TASK_ID.ended" # of an attempt before a requeue',
        'mapfile -t words < <(sed -n "${SLURM_ARRAY_TASK_ID}p" "$files.txt" | xargs printf \'%s\\n\')',
        *address,
        "code=0",
        f"{srun} {container}torchrun {meeting} --nproc_per_node={array.shape.processes} \\",
        f"  --signals_to_handle={SIGNALS} \\",
        '  -m mlenergy.diffusion.benchmark "${words[@]}" || code=$?',
        'echo "$code" > "$files-$SLURM_ARRAY_TASK_ID.ended"',
        'exit "$code"',
    ]
