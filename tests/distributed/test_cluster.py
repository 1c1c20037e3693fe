import os
import sys
from pathlib import Path

import forked
import pytest

from mlenergy.diffusion.distributed.cluster import read_rank
from mlenergy.diffusion.errors import UserError

WORKER = Path(__file__).parents[1] / "support" / "cluster_worker.py"


def torchrun(program):
    environ = {**os.environ, "PROGRAM": program, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(WORKER),
    ]
    return forked.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)


def our_lines(done):
    return [line for line in done.stderr.splitlines() if line.startswith("mlenergy: error:")]


def test_objects_travel_and_only_rank_0_prints():
    done = torchrun("objects")
    assert done.returncode == 0, done.stderr
    assert "rank 0 done" in done.stdout
    assert "rank 1 done" not in done.stdout


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("agreed_error", "rank 1 has no weights; put them there"),
        ("lone_error", "only rank 1 knows; do something"),
        ("early_error", "all ranks find the same mistake; fix it"),
        ("surprise", "unexpected ValueError on rank 1: a bug of two lines; --debug shows the traceback"),
    ],
)
def test_a_failure_is_one_line_from_one_rank(program, line):
    done = torchrun(program)
    assert done.returncode != 0
    assert our_lines(done) == [f"mlenergy: error: {line}"]
    assert "UserError" not in done.stderr  # no traceback of ours


def test_no_torchrun_means_one_rank():
    rank = read_rank({})
    assert (rank.rank, rank.world_size, rank.launched, rank.is_main) == (0, 1, False, True)


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({"RANK": "0"}, "LOCAL_RANK is not set"),
        ({"RANK": "x", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, "not a number"),
    ],
)
def test_half_a_torchrun_is_refused(environ, complaint):
    with pytest.raises(UserError, match=complaint):
        read_rank(environ)
