"""Two ranks of one node that torchrun starts: weights arrive once, failures arrive on both.

Each rank writes a JSON object to <folder>/<rank>.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from mlenergy.diffusion.distributed.cluster import Cluster, read_rank
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.weights.load_report import LoadWatch
from mlenergy.diffusion.weights.per_node import locate
from mlenergy.diffusion.weights.pipeline import load


def plan_for(weights: str) -> SimpleNamespace:
    options = {
        "weights": "pretrained",
        "variant": None,
        "lora": None,
        "allow_pickle": False,
        "trust_remote_code": False,
    }
    spec = BY_ID["tiny/flux"]  # of a family whose parts lie in one folder
    return SimpleNamespace(weights_from=weights, revision=None, dtype="float32", spec=spec, **options)


def main(folder: str, hub_id: str, large: str) -> None:
    torch.set_num_threads(1)
    cluster = Cluster.start(read_rank(), "cpu")
    found = {
        "tiny": path_of("tiny/sd1.5", cluster),
        "hub": path_of(hub_id, cluster),
        "missing": failure("owner/none", cluster),
    }
    found["class"] = type(pipeline_of(hub_id, cluster)).__name__  # warms the libraries too
    found |= measured_load(large, cluster)
    Path(folder, f"{cluster.rank.rank}.json").write_text(json.dumps(found))
    cluster.close()


def path_of(weights: str, cluster: Cluster) -> str:
    return str(locate(plan_for(weights), cluster).path)


def pipeline_of(weights: str, cluster: Cluster) -> Any:
    plan = plan_for(weights)
    return load(locate(plan, cluster), plan, "cpu")


def failure(weights: str, cluster: Cluster) -> str:
    try:
        return path_of(weights, cluster)
    except UserError as error:
        return f"refused: {error}"


def measured_load(large: str, cluster: Cluster) -> dict[str, int]:
    """Memory that this rank's load took, once every weight has been read by both ranks."""
    cluster.barrier()
    watch = LoadWatch(torch.device("cpu"))
    pipeline = pipeline_of(large, cluster)
    touched = sum(float(p.sum()) for p in pipeline.text_encoder_2.parameters())
    cluster.barrier()
    facts = watch.facts(pipeline)
    cluster.barrier()  # memory is shared only while both ranks hold it
    assert touched == touched
    return {key: value for key, value in facts.items() if key.endswith("bytes")}


if __name__ == "__main__":
    main(*sys.argv[1:])
