"""The time that a Slurm job has left, held against the signal that Slurm sends before its end."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping

# Slurm may send a signal so much earlier than asked (sbatch's manual, --signal).
_EARLIER_S = 60.0
_LEFT = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")  # [days-][hours:]minutes:seconds


def warning_of(lead_s: float) -> str | None:
    """A warning where the signal may come as soon as the job starts; None without Slurm or with enough time.

    Args:
        lead_s: how long before the time limit Slurm was asked to send its signal.
    """
    left_s = time_left_s()
    if left_s is None or left_s > lead_s + _EARLIER_S:
        return None
    return (
        f"this job ends in {left_s:.0f} s; Slurm's signal is due {lead_s:.0f} s before (--signal) or up to "
        f"{_EARLIER_S:.0f} s earlier: it may end the run before anything is measured; give it more --time"
    )


def time_left_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds until the Slurm job that this process belongs to ends; None where that is not known."""
    if (end := environ.get("SLURM_JOB_END_TIME", "")).isdigit():
        return float(end) - time.time()
    if (job := environ.get("SLURM_JOB_ID")) is None:
        return None
    asked = ["squeue", "--noheader", f"--job={job}", "--format=%L"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):  # in a container without Slurm's commands
        return None
    found = _LEFT.fullmatch(done.stdout.split("\n")[0].strip())
    if found is None:  # UNLIMITED, INVALID, NOT_SET
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
