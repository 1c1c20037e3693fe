"""The requests of a plan, drawn on rank 0: prompts, or classes where these steer the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlenergy.diffusion.prompts.classes import class_requests
from mlenergy.diffusion.prompts.sampling import PromptOptions, PromptSet, sample_requests

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.distributed.cluster import Cluster


def draw(plan: Plan) -> PromptSet:
    """Requests of all images that a plan may make, and of its warm-up.

    Raises:
        UserError: the source of the prompts cannot be read.
    """
    count, warmup_count = plan.most_iters * plan.batch_size, plan.warmup_iters * plan.batch_size
    model = plan.spec.next_scale
    if model is not None and model.classes is not None:
        return class_requests(
            model.classes, plan.class_ids or (), count, plan.seed, warmup_count, dataset=plan.dataset
        )
    return sample_requests(PromptOptions.from_plan(plan), count, plan.seed, warmup_count)


def shared_prompts(plan: Plan, cluster: Cluster) -> PromptSet:
    """Rank 0 samples and the others are told, so that no two ranks race for a dataset's files.

    Raises:
        UserError: on every rank, the source's own line.
    """
    prompts: PromptSet | None = None
    with cluster.raise_on_all_ranks():
        if cluster.rank.is_main:
            prompts = draw(plan)
    shared: PromptSet = cluster.broadcast_object(prompts)
    return shared
