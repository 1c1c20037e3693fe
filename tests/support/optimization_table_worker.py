"""Two ranks, one set-up of the table after another: what every rank saw, and what had no effect."""

import functools
import json
import sys
import traceback
from pathlib import Path

import torch
from optimization_table import SetUp

from mlenergy.diffusion.distributed.cluster import Cluster, read_rank
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect

FOUR = Batch(("a red fox", "a blue whale", "a green frog", "a white owl"), (1, 2, 3, 4))


def serve(set_up: SetUp, cluster: Cluster) -> dict[str, object]:
    """Every rank's effects of one generation."""
    plan = set_up.plan()
    torch._dynamo.reset()
    engine = load_engine(plan, cluster)
    rows = plan.batch_size
    engine.generate(Batch(FOUR.prompts[:rows], FOUR.seeds[:rows]))
    ranks = cluster.all_gather_object(engine.effects(0))
    engine.close()
    return {"ranks": ranks, "no_effect": optimizations_without_effect(plan.optimizations, ranks)}


def main(folder: str) -> None:
    """Serve the set-ups of asked.json, write found.json."""
    torch.set_num_threads(1)
    cluster = Cluster.start(read_rank(), "cpu")
    found = {}
    asked = [SetUp(*fields) for fields in json.loads((Path(folder) / "asked.json").read_text())]
    for set_up in asked:
        try:
            found[set_up.name] = serve(set_up, cluster)
        except Exception:  # a rank that is alone with it leaves the other one waiting: its log says so
            found[set_up.name] = {"error": traceback.format_exc()}
            print(set_up.name, found[set_up.name]["error"], file=sys.stderr, flush=True)
    if cluster.rank.is_main:
        (Path(folder) / "found.json").write_text(json.dumps(found))
    cluster.barrier()
    cluster.close()


if __name__ == "__main__":
    functools.partial(main, sys.argv[1])()
