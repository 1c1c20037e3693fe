"""Small programs for several ranks; the test names one in PROGRAM."""

import os
import sys
import time

from mlenergy.diffusion.distributed.cluster import Cluster
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.supervision.exit_codes import exit_code_of


def objects(argv, rank):
    cluster = Cluster.start(rank, "cpu")
    assert cluster.broadcast_object({"from": rank.rank}) == {"from": 0}
    gathered = cluster.gather_object(rank.rank * 10)
    assert gathered == ([0, 10] if rank.is_main else None)
    assert cluster.all_gather_object(rank.rank) == [0, 1]
    cluster.barrier()
    print(f"rank {rank.rank} done")  # only rank 0's may appear
    cluster.close()


def agreed_error(argv, rank):
    cluster = Cluster.start(rank, "cpu")
    with cluster.raise_on_all_ranks():
        if rank.rank == 1:
            raise UserError("rank 1 has no weights; put them there")


def lone_error(argv, rank):
    cluster = Cluster.start(rank, "cpu")
    if rank.rank == 1:
        raise UserError("only rank 1 knows; do something")
    cluster.barrier()  # never comes back: torchrun ends this rank


def surprise(argv, rank):
    Cluster.start(rank, "cpu")
    if rank.rank == 1:
        raise ValueError("a bug\nof two lines")
    time.sleep(60)


def early_error(argv, rank):
    raise UserError("all ranks find the same mistake; fix it")


if __name__ == "__main__":
    sys.exit(exit_code_of(globals()[os.environ["PROGRAM"]]))
