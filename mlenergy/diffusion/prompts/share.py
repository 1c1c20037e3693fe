"""The prompts of a run on every rank, and the batches that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.prompts.sampling import PromptOptions, PromptSet, Request, sample_requests

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.distributed.cluster import Cluster


def shared_prompts(plan: Plan, cluster: Cluster) -> PromptSet:
    """Rank 0 samples and the others are told, so that no two ranks race for a dataset's files.

    Raises:
        UserError: on every rank, the source's own line.
    """
    prompts: PromptSet | None = None
    with cluster.raise_on_all_ranks():
        if cluster.rank.is_main:
            prompts = sample_requests(
                PromptOptions.from_plan(plan),
                plan.most_iters * plan.batch_size,
                plan.seed,
                plan.warmup_iters * plan.batch_size,
            )
    shared: PromptSet = cluster.broadcast_object(prompts)
    return shared


def batches_of(requests: Sequence[Request], batch_size: int) -> list[Batch]:
    """Full batches in order; the number of requests is a multiple of the batch size."""
    starts = range(0, len(requests), batch_size)
    return [_batch(requests[start : start + batch_size]) for start in starts]


def _batch(requests: Sequence[Request]) -> Batch:
    return Batch(tuple(r.prompt for r in requests), tuple(r.seed for r in requests))
