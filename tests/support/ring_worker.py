"""Two ranks on two GPUs: an image in bfloat16 by ring attention against the one of one GPU.

    torchrun --standalone --nproc_per_node=2 ring_worker.py KERNEL

The rank that holds the image prints the largest difference of any pixel.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.distributed.cluster import Cluster, Rank, read_rank
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.models.resolve import resolve_model

MODEL = "tiny/flux"
WORK = f"workload:t2i --workload.model_id {MODEL} --workload.height 256 --workload.width 256"
STEPS = "--workload.inference_steps 4 --workload.dtype bfloat16"


def main(kernel: str) -> None:
    """Both images, and their difference."""
    cluster = Cluster.start(read_rank(), "cuda")
    alone = Cluster(replace(Rank(), local_rank=cluster.rank.local_rank), cluster.device, None)
    expected = image("--engine diffusers", 1, alone)
    found = image(f"--engine xdit --ring_degree 2 --attention_backend {kernel}", 2, cluster)
    if found is not None:
        assert expected is not None and found.shape == expected.shape
        print(f"difference {float((found.float() - expected.float()).abs().max())}", flush=True)
    cluster.close()


def image(words: str, world: int, cluster: Cluster) -> torch.Tensor | None:
    """One image, on the rank that holds it."""
    args = parse_args([*words.split(), *WORK.split(), *STEPS.split()])
    plan = make_plan(args, resolve_model(MODEL), world, "cuda", "a GPU")
    engine = load_engine(plan, cluster)
    made = engine.generate(Batch(("a red fox",), (1,))).images
    engine.close()
    return made


if __name__ == "__main__":
    main(sys.argv[1])
