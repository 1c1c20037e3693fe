"""Starts the parity worker, once a world size; used by the tests and by scripts/capabilities.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
from parity_cases import EVERYTHING

from mlenergy.diffusion.weights.tiny import tiny_folder

HERE = Path(__file__).parent
RESULTS = HERE.parent / "parity" / "results.json"  # what docs/capabilities.md is made from
TIME_LIMIT_S = 840


class WorkerFailed(Exception):
    """The worker ended without results; its text is the end of the log."""


def build_tiny_models() -> None:
    """Once, so that no rank of a worker waits for another one's building."""
    for name in sorted({case.model for case in EVERYTHING}):
        tiny_folder(name)


def run_worker(world_size: int, output: Path, pattern: str = "") -> dict[str, Any]:
    """Case name -> what was found, for every case of this many ranks."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world_size}"),
        *(str(HERE / "parity_worker.py"), str(output), pattern),
    ]
    log = output.with_suffix(".log")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as stream:
        done = forked.run(
            command, stdout=stream, stderr=subprocess.STDOUT, timeout=TIME_LIMIT_S, env=environment
        )
    if done.returncode:
        raise WorkerFailed(f"the worker ended with {done.returncode}:\n{log.read_text()[-6000:]}")
    return dict(json.loads(output.read_text()))
