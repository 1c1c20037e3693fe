"""The plan's memory estimate, asked of a process of its own: it may be slow, and the run that asks is dying.

The child sees no GPU, asks no network and shares no memory with the run; when its time is up, it and
whatever it has started are killed.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.spec import Stage

# Counting an architecture that the package does not ship takes about ten seconds on a slow machine.
TIME_LIMIT_S = 30.0
_MODULE = "mlenergy.diffusion.supervision.estimate"


@dataclass(frozen=True)
class Estimate:
    """Estimate of `mlenergy plan` for the fullest rank; None with the reason where there is none."""

    estimated_bytes: int | None = None  # weights and the largest stage
    estimated_parameter_bytes: int | None = None
    estimated_stage: Stage | None = None
    estimate_leaves_out: tuple[str, ...] = ()  # options whose effect on memory is not in the estimate
    estimate_reason: str | None = None  # why estimated_bytes is None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for status.json."""
        return asdict(self)


def estimate_of(plan: Plan, limit_s: float = TIME_LIMIT_S) -> Estimate:
    """The plan's estimate, or the reason for its absence; never takes longer than `limit_s`, never raises."""
    try:
        answer = _ask_child(pickle.dumps(plan), limit_s)
        return Estimate(**json.loads(answer.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Estimate(estimate_reason=f"it took more than {limit_s:g} s")
    except Exception as error:  # whatever it is, the run's own failure matters more
        return Estimate(estimate_reason=" ".join(str(error).split()) or type(error).__name__)


def _ask_child(plan: bytes, limit_s: float) -> str:
    child = subprocess.Popen(
        [sys.executable, "-m", _MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
        start_new_session=True,  # a group of its own, so that its own children end with it
    )
    try:
        out, err = child.communicate(plan, timeout=limit_s)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise
    if child.returncode:
        said = err.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        raise RuntimeError(f"estimating failed: {said[0]}")
    return out.decode()


def _main() -> None:
    """Read a plan, print its estimate."""
    from mlenergy.diffusion.cost.memory import estimate_memory
    from mlenergy.diffusion.errors import UserError

    plan = pickle.load(sys.stdin.buffer)
    try:
        memory = estimate_memory(plan)
        found = Estimate(
            memory.peak_bytes,
            memory.total_parameter_bytes,
            memory.peak_stage,
            memory.leaves_out,
        )
    except UserError as error:
        found = Estimate(estimate_reason=str(error))
    print(json.dumps(found.as_dict()))


if __name__ == "__main__":
    _main()
