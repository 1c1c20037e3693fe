"""Slurm: jobs that need the same nodes become an array; its files, its submission, and its tasks' states."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.ledger import Ledger, now
from mlenergy.diffusion.executors.process import failure_in_log
from mlenergy.diffusion.executors.torchrun import LAUNCHER, ONE_MACHINE

ARRAY_LIMIT = 1000  # Slurm's MaxArraySize is 1001 by default, and tasks count from 1 here
_DEFAULTS = {"time": "01:00:00", "signal": "USR1@120"}
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESV_DEL_HOLD")


@dataclass(frozen=True)
class SlurmSettings:
    """Settings of the request for nodes."""

    processes_per_node: int = 8
    gpus: bool = True  # False: a CPU partition, so ask for CPUs instead
    options: Mapping[str, Any] = field(default_factory=dict)  # sbatch's own, such as partition or time
    setup: tuple[str, ...] = ()  # shell lines before the run, such as module load
    container: str = ""  # words before torchrun, such as apptainer exec --nv image.sif
    max_parallel: int | None = None  # array tasks at a time


@dataclass(frozen=True)
class Array:
    """Jobs that need the same nodes, as one job array: task N runs job N, counted from 1."""

    name: str  # `2x8`: nodes and processes on each; part of file names and of the Slurm job's name
    nodes: int
    processes: int  # on each node
    jobs: tuple[Job, ...]


def reason_against(job: Job, settings: SlurmSettings) -> str | None:
    """The reason why a job cannot be submitted, or None: beyond one node it has to fill whole ones."""
    per_node = settings.processes_per_node
    if any("\n" in word for word in job.argv):
        return "an option's text has several lines, and a run is one line of the array's file; write one line"
    if job.processes <= per_node or job.processes % per_node == 0:
        return None
    return (
        f"{job.processes} processes do not fill nodes of {per_node}; use degrees that make a multiple of "
        f"{per_node}, or another slurm: processes_per_node"
    )


def arrays_of(jobs: Sequence[Job], settings: SlurmSettings) -> list[Array]:
    """Arrays of jobs that can be submitted, one for each number of nodes and processes, in the jobs' order.

    More jobs than an array may have tasks become several arrays.
    """
    per_node = settings.processes_per_node
    alike: dict[tuple[int, int], list[Job]] = {}
    for job in jobs:
        nodes = max(1, job.processes // per_node)
        alike.setdefault((nodes, job.processes // nodes), []).append(job)
    arrays = []
    for (nodes, processes), members in alike.items():
        chunks = [members[i : i + ARRAY_LIMIT] for i in range(0, len(members), ARRAY_LIMIT)]
        for number, chunk in enumerate(chunks, 1):
            name = f"{nodes}x{processes}" + (f"-{number}" if len(chunks) > 1 else "")
            arrays.append(Array(name, nodes, processes, tuple(chunk)))
    return arrays


def lines_text(array: Array, extra: Sequence[str] = ()) -> str:
    """The file whose line N task N runs, quoted for xargs; `extra` options come before each job's own."""
    return "".join(f"{shlex.join([*extra, *job.argv])}\n" for job in array.jobs)


def sbatch_text(array: Array, settings: SlurmSettings, name: str, folder: Path) -> str:
    """The sbatch file of an array.

    Args:
        array: its jobs.
        settings: the nodes to ask for.
        name: first part of the Slurm job's name.
        folder: of the file, its lines, the logs and the tasks' exit codes.
    """
    options = [f"#SBATCH {option}" for option in _options(array, settings, name, folder)]
    return "\n".join(["#!/usr/bin/env bash", *options, *_body(array, settings, folder)]) + "\n"


def _options(array: Array, settings: SlurmSettings, name: str, folder: Path) -> list[str]:
    at_most = f"%{settings.max_parallel}" if settings.max_parallel else ""
    needed = "gpus-per-node" if settings.gpus else "cpus-per-task"
    own = {**_DEFAULTS, **settings.options}
    return [
        f"--job-name={name}-{array.name}",
        f"--array=1-{len(array.jobs)}{at_most}",
        f"--nodes={array.nodes}",
        "--ntasks-per-node=1",
        f"--{needed}={array.processes}",
        f'--output="{folder}/{array.name}-%a.log"',
        "--open-mode=append",
        "--requeue",
        *(
            f"--{option}" if value is True else f"--{option}={value}"
            for option, value in own.items()
            if value is not False
        ),
    ]


def _body(array: Array, settings: SlurmSettings, folder: Path) -> list[str]:
    container = f"{settings.container} " if settings.container else ""
    python = f"{container}python3 -c"
    if array.nodes == 1:
        rendezvous, srun, address = " ".join(ONE_MACHINE), "srun", []
    else:
        rendezvous = '--nnodes="$SLURM_NNODES" --rdzv_id="$SLURM_JOB_ID" --rdzv_backend=c10d \\\n'
        rendezvous += '  --rdzv_endpoint="$head:$port"'
        srun = "srun --kill-on-bad-exit=1"
        free_port = 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
        address = [
            'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)',
            f"port=$({python} '{free_port}')",
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
        f"{srun} {container}python3 -m {LAUNCHER} {rendezvous} \\",
        f'  --nproc_per_node={array.processes}{_signal_lead(settings)} -- "${{words[@]}}" || code=$?',
        'echo "$code" > "$files-$SLURM_ARRAY_TASK_ID.ended"',
        'exit "$code"',
    ]


def _signal_lead(settings: SlurmSettings) -> str:
    """The launcher's option of how long before the time limit Slurm sends its signal; none without one."""
    lead_s = str({**_DEFAULTS, **settings.options}["signal"]).partition("@")[2]
    return f" --signal_lead_s={lead_s}" if lead_s.isdigit() else ""


def next_folder(base: Path) -> Path:
    """A new numbered folder for one submission; earlier ones stay, since their tasks may still run."""
    taken = [int(folder.name) for folder in base.glob("[0-9]*") if folder.name.isdigit()]
    return base.resolve() / f"{max(taken, default=0) + 1:03d}"


def submit(
    jobs: Sequence[Job],
    settings: SlurmSettings,
    name: str,
    folder: Path,
    ledger: Ledger,
    extra: Sequence[str],
) -> list[str]:
    """Write and submit the arrays, recording each in the ledger as soon as Slurm has it.

    Args:
        jobs: what to run.
        settings: the nodes to ask for.
        name: first part of the Slurm jobs' names.
        folder: new, for the arrays' files.
        ledger: has an entry for each job.
        extra: options that come before each job's own.

    Returns:
        The ids of the Slurm jobs.

    Raises:
        UserError: a file cannot be written; sbatch is missing or refuses.
    """
    ids = []
    for array in arrays_of(jobs, settings):
        script = folder / f"{array.name}.sbatch"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{array.name}.txt").write_text(lines_text(array, extra))
            script.write_text(sbatch_text(array, settings, name, folder))
        except OSError as error:
            raise UserError(
                f"cannot write {script}: {error.strerror}; choose another folder in the sweep file"
            ) from None
        job_id = _slurm("sbatch", "--parsable", str(script)).strip().partition(";")[0]
        ids.append(job_id)
        for task, job in enumerate(array.jobs, 1):
            ledger.update(
                job.key,
                state="submitted",
                attempts=ledger.entries[job.key].attempts + 1,
                started=now(),
                **dict.fromkeys(("ended", "exit_code", "message", "duration_s")),
                log=str(folder / f"{array.name}-{task}.log"),
                slurm_task=f"{job_id}_{task}",
                slurm_record=str(folder / f"{array.name}-{task}.ended"),
            )
        ledger.save()
    return ids


def refresh(ledger: Ledger, save: bool = True) -> None:
    """Update the ledger: from the tasks' exit codes, and from the queue for tasks without one.

    Raises:
        UserError: squeue is missing or fails.
    """
    open_keys = [
        key for key, e in ledger.entries.items() if e.slurm_record and e.state in ("submitted", "running")
    ]
    if not open_keys:
        return
    # The queue first: a task that leaves it after that has written its exit code before.
    lines = _slurm("squeue", "--noheader", "--array", "--me", "--format=%F_%K %T").splitlines()
    queue = dict(line.split(maxsplit=1) for line in lines if len(line.split()) == 2)
    for key in open_keys:
        entry = ledger.entries[key]
        code = _exit_code(Path(entry.slurm_record or ""))
        in_queue = queue.get(entry.slurm_task or "")
        if in_queue is not None:
            ledger.update(key, state="submitted" if in_queue in _WAITING else "running")
        elif code is None:
            message = f"it left the queue without an exit code; see {entry.log}"
            ledger.update(key, state="interrupted", message=message)
        elif code == 0:
            ledger.update(key, state="complete", message=None, exit_code=0, ended=now())
        else:
            state, message = failure_in_log(code, Path(entry.log or ""))
            ledger.update(key, state=state, message=message, exit_code=code, ended=now())
    if save:
        ledger.save()


def _exit_code(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _slurm(*words: str) -> str:
    """The output of a command of Slurm's."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise UserError(
            f"{words[0]} is not installed here; run this where jobs are submitted, or use --executor local"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]} does not answer; try again when Slurm does") from None
    if done.returncode:
        reason = " ".join(done.stderr.split()) or "it gave no reason"
        raise UserError(f"{words[0]} refused: {reason}; fix the slurm section of the sweep file")
    return done.stdout
