"""Two ranks that torchrun starts: the diffusers engine as it is, and broken on purpose.

Rank 0 writes a JSON object: case -> largest difference of a pixel from the one-rank image.

    torchrun --standalone --nproc_per_node=2 tests/support/diffusers_worker.py out.json tiny/flux tiny/sd3
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from parity_reference import Wanted, reference_images

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.distributed.cluster import Cluster, read_rank
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines.diffusers import context_parallel
from mlenergy.diffusion.engines.diffusers.engine import DiffusersEngine
from mlenergy.diffusion.models.resolve import resolve_model

BATCH = Batch(("a fox in the snow", "seven blue boats on a lake at dusk"), (50, 51))
ROUTED = ("tiny/sd3", "tiny/sd3.5", "tiny/pixart-alpha", "tiny/pixart-sigma", "tiny/hunyuandit")
GUIDED = frozenset({"tiny/sd3", "tiny/hunyuandit"})
UNETS = ("tiny/sdxl", "tiny/sd1.5")
DEGREES = {"ulysses": Parallelism(ulysses=2), "ring": Parallelism(ring=2)}
EMBEDDERS = {"tiny/flux": "x_embedder"}  # others: pos_embed

Change = Callable[[Any], object]


def plan_for(model: str, degrees: Parallelism) -> Plan:
    work = TextToImage(
        model_id=model,
        batch_size=len(BATCH.prompts),
        height=64,
        width=96,
        inference_steps=2,
        negative_prompt=None if model == "tiny/flux" else "blurred",
        dtype="float32",
        dataset="bundled",
    )
    args = BenchmarkArgs(work, engine="diffusers", device="cpu")
    return replace(make_plan(args, resolve_model(model), 1, "cpu", "cpu"), parallel=degrees)


@functools.cache
def one_rank_images(model: str) -> torch.Tensor:
    negative = None if model == "tiny/flux" else "blurred"
    return reference_images(Wanted(model, BATCH.prompts, BATCH.seeds, 64, 96, 2, negative=negative))


def difference(model: str, degrees: Parallelism, cluster: Cluster, change: Change | None = None) -> float:
    """From the same batch on one rank; `change` breaks the engine on rank 1 before it generates."""
    expected = one_rank_images(model)
    engine = DiffusersEngine.load(plan_for(model, degrees), cluster)
    if change is not None and cluster.rank.rank == 1:
        with torch.no_grad():
            change(engine.pipeline)
    held = engine.generate(BATCH)
    if held.images is None:
        return 0.0
    rows = slice(held.first_row, held.first_row + len(held.images))
    return float((held.images - expected[rows]).abs().max())


def shift_tokens(model: str) -> Change:
    """This rank's part of the image's tokens moves by one."""

    def change(pipeline: Any) -> None:
        embedder = getattr(pipeline.transformer, EMBEDDERS.get(model, "pos_embed"))
        embedder.register_forward_hook(lambda _, __, output: output.roll(1, dims=1))

    return change


def swap_halves(pipeline: Any) -> None:
    """This rank computes the half of the guidance batch that the other one computes."""
    denoiser = pipeline.components.get("transformer") or pipeline.unet
    swapped = dict(denoiser._forward_pre_hooks)
    denoiser._forward_pre_hooks.clear()
    denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: (tuple(swap(x) for x in args), {k: swap(x, k) for k, x in kwargs.items()}),
        with_kwargs=True,
    )
    denoiser._forward_pre_hooks.update(swapped)


def spoil_shard(pipeline: Any) -> None:
    """This rank's slice of one weight is shifted by one row."""
    weight = pipeline.transformer.transformer_blocks[0].ff.net[0].proj.weight.to_local()
    weight.copy_(weight.roll(1, dims=0))


def swap(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: swap(part) for key, part in value.items()}
    if not torch.is_tensor(value) or value.ndim == 0:
        return value
    return value.roll(value.shape[0] // 2, dims=0)


def main(output: str, *models: str) -> None:
    torch.set_num_threads(1)
    cluster = Cluster.start(read_rank(), "cpu")
    found: dict[str, float] = {}
    for model in models:
        for mode, degrees in DEGREES.items():
            found[f"{model} {mode}"] = difference(model, degrees, cluster)
            found[f"{model} {mode} shifted"] = difference(model, degrees, cluster, shift_tokens(model))
    with patch.object(context_parallel, "route_self_attention"):
        for model in sorted(set(ROUTED).intersection(models)):
            found[f"{model} ulysses unrouted"] = difference(model, DEGREES["ulysses"], cluster)
    for model in (*sorted(GUIDED.intersection(models)), *UNETS):
        found[f"{model} cfg"] = difference(model, Parallelism(cfg=2), cluster)
        found[f"{model} cfg swapped"] = difference(model, Parallelism(cfg=2), cluster, swap_halves)
        found[f"{model} data"] = difference(model, Parallelism(data=2), cluster)
    found["tiny/flux tensor"] = difference("tiny/flux", Parallelism(tensor=2), cluster)
    found["tiny/flux tensor spoiled"] = difference("tiny/flux", Parallelism(tensor=2), cluster, spoil_shard)
    parts = cluster.gather_object(found)
    if parts is not None:
        worst = {case: max(part[case] for part in parts) for case in found}
        Path(output).write_text(json.dumps(worst, indent=1))
    dist.barrier()
    cluster.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
