"""Two ranks, one case after another: images against those of one process, and what every rank saw."""

import json
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from optimization_batches import FOX, WHALE, words_of

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.distributed.cluster import Cluster, read_rank
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.models.resolve import resolve_model


def main(folder: str) -> None:
    torch.set_num_threads(1)
    cluster = Cluster.start(read_rank(), "cpu")
    found = {}
    for name, case in json.loads((Path(folder) / "cases.json").read_text()).items():
        torch._dynamo.reset()
        args = parse_args(words_of(case["model"], [*case["words"], *case["degrees"]]))
        plan = make_plan(args, resolve_model(case["model"]), 2, "cpu", "a device")
        backend = "eager" if case.get("traced_only") else "inductor"
        with mock.patch.object(torch, "compile", partial(torch.compile, backend=backend)):
            engine = load_engine(plan, cluster)
        batch = WHALE if plan.batch_size == 2 else FOX
        held = [engine.generate(batch) for _ in range(2)][1]
        expected = torch.load(Path(folder) / f"{name}.pt")
        worst = 0.0
        if held.images is not None:
            rows = slice(held.first_row, held.first_row + len(held.images))
            worst = float((held.images - expected[rows]).abs().max())
        effects = engine.effects(1)
        engine.close()
        parts = cluster.gather_object((worst, effects))
        if parts is not None:
            found[name] = {"worst": max(part[0] for part in parts), "effects": [part[1] for part in parts]}
    if cluster.rank.is_main:
        (Path(folder) / "found.json").write_text(json.dumps(found))
    cluster.barrier()
    cluster.close()


if __name__ == "__main__":
    main(sys.argv[1])
