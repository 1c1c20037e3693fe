"""Patches are applied and reverted whole; with its own, a parallel VAE forms no groups in a call."""

from __future__ import annotations

import sys
from pathlib import Path

import forked

WORKER = Path(__file__).parents[1] / "support" / "xdit_patches_worker.py"


def run(scene: str, processes: int = 1) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = forked.run([*command, str(WORKER), scene], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.split()


def test_patches_are_applied_once_and_reverted_whole() -> None:
    assert run("in-and-out") == ["same", "changed", "same"]


def test_parallel_vae_forms_no_group_in_a_call_and_would_without_its_patch() -> None:
    patched, unpatched = (int(count) for count in run("groups", processes=2))
    assert patched == 0
    assert unpatched > 0
