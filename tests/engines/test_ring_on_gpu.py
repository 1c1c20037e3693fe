"""Ring attention in bfloat16 on two GPUs: torch's kernels behind xfuser's ring give one GPU's image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs"),
]
WORKER = Path(__file__).parents[1] / "support" / "ring_worker.py"


@pytest.mark.parametrize("kernel", ["cudnn", "flash"])
def test_a_ring_of_two_gives_the_image_of_one_gpu(kernel: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(WORKER), kernel], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("difference "))
    assert float(line.split()[1]) < 0.06  # as one GPU's kernels differ among each other
