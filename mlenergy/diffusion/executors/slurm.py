"""Submitting a sweep's arrays to Slurm, and asking later what has become of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.job import Job
from mlenergy.diffusion.executors.ledger import Ledger, now
from mlenergy.diffusion.executors.process import how_it_ended
from mlenergy.diffusion.executors.slurm_script import Array, arrays_of, lines_text, record_file, sbatch_text
from mlenergy.diffusion.sweep.spec import SweepSpec

_WAITS = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESV_DEL_HOLD")


def next_folder(spec: SweepSpec) -> Path:
    """A folder for one submission; earlier ones stay, since their tasks may still run."""
    base = spec.folder.resolve() / "slurm"
    taken = [int(folder.name) for folder in base.glob("[0-9]*") if folder.name.isdigit()]
    return base / f"{max(taken, default=0) + 1:03d}"


def write_array(array: Array, spec: SweepSpec, folder: Path, extra: Sequence[str]) -> Path:
    """The array's files; the sbatch file's path.

    Raises:
        UserError: they cannot be written.
    """
    script = folder / f"{array.name}.sbatch"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{array.name}.txt").write_text(lines_text(array, extra))
        script.write_text(sbatch_text(array, spec.slurm, spec.name, folder))
    except OSError as error:
        raise UserError(
            f"cannot write {script}: {error.strerror}; choose another folder in the sweep file"
        ) from None
    return script


def submit(spec: SweepSpec, jobs: Sequence[Job], ledger: Ledger, extra: Sequence[str]) -> list[str]:
    """Write and submit the arrays, recording each as soon as it is in.

    Returns:
        The ids of the jobs.

    Raises:
        UserError: sbatch is missing or refuses.
    """
    folder = next_folder(spec)
    ids = []
    for array in arrays_of(jobs, spec.slurm):
        script = write_array(array, spec, folder, extra)
        job_id = _slurm("sbatch", "--parsable", str(script)).strip().partition(";")[0]
        ids.append(job_id)
        for task, job in enumerate(array.jobs, 1):
            ledger.update(
                job.run.key,
                state="submitted",
                attempts=ledger.entries[job.run.key].attempts + 1,
                started=now(),
                **dict.fromkeys(("ended", "exit_code", "message", "duration_s")),
                log=str(folder / f"{array.name}-{task}.log"),
                slurm_task=f"{job_id}_{task}",
                slurm_record=str(record_file(folder, array, task)),
            )
        ledger.save()
    return ids


def refresh(ledger: Ledger, save: bool = True) -> None:
    """Bring the ledger up to date: from the tasks' exit codes, and from the queue for those without one.

    Raises:
        UserError: squeue is missing or fails.
    """
    open_keys = [
        key for key, e in ledger.entries.items() if e.slurm_record and e.state in ("submitted", "running")
    ]
    if not open_keys:
        return
    # The queue first: a task that leaves it in between has written its exit code by then.
    queue = _queue()
    for key in open_keys:
        entry = ledger.entries[key]
        code = _exit_code(Path(entry.slurm_record or ""))
        in_queue = queue.get(entry.slurm_task or "")
        if code is not None and in_queue is None:
            state, reason = how_it_ended(code, Path(entry.log or "")) if code else ("complete", None)
            ledger.update(key, state=state, message=reason, exit_code=code, ended=now())
        elif in_queue is not None:
            ledger.update(key, state="submitted" if in_queue in _WAITS else "running")
        else:
            ledger.update(
                key, state="interrupted", message=f"it left the queue without a word; see {entry.log}"
            )
    ledger.save()


def parse_queue(lines: Iterable[str]) -> dict[str, str]:
    """`123_4 RUNNING` lines, by task."""
    return dict(line.split(maxsplit=1) for line in lines if len(line.split()) == 2)


def _queue() -> dict[str, str]:
    return parse_queue(_slurm("squeue", "--noheader", "--array", "--me", "--format=%F_%K %T").splitlines())


def _exit_code(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _slurm(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise UserError(
            f"there is no {words[0]} here; run this where jobs are submitted, or use --executor local"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]} does not answer; try again when Slurm does") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or "it gave no reason"
        raise UserError(f"{words[0]} refused: {said}; mend the slurm section of the sweep file")
    return done.stdout
