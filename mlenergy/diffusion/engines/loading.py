"""Loading and unloading of a pipeline, as both engines do it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.distributed.cluster import Cluster
from mlenergy.diffusion.engines.call import begin_at_the_first_step
from mlenergy.diffusion.engines.optimizations.applied import AppliedOptimizations
from mlenergy.diffusion.models.hub import ModelFolder
from mlenergy.diffusion.weights import pipeline as weights
from mlenergy.diffusion.weights.per_node import locate


def load_on_every_rank(
    plan: Plan,
    cluster: Cluster,
    optimizations: AppliedOptimizations,
    check: Callable[[ModelFolder | None], None] = lambda _: None,
    prepare: Callable[[Any], None] = lambda _: None,
) -> Any:
    """The whole pipeline on this rank's device, with the optimizations that come before any split.

    Groups are formed after this: where one rank fails, all raise its error, and none waits in a group
    for one that failed.

    check: looks at the model's folder before its weights are read; None stands for random weights.
    prepare: changes the pipeline before any optimization does.

    Raises:
        UserError: on every rank, the first rank's: the weights cannot be had, or an optimization does
            not fit the model.
    """
    with cluster.raise_on_all_ranks():
        folder = locate(plan, cluster)
        check(folder)
        pipeline = weights.load(folder, plan, optimizations.load_device)
        prepare(pipeline)
        if plan.boundary_ratio is not None:
            pipeline.register_to_config(boundary_ratio=plan.boundary_ratio)
        optimizations.before_split(pipeline)
        begin_at_the_first_step(pipeline.scheduler)
        move_rotary_tables(pipeline, optimizations.device)
    return pipeline


def move_rotary_tables(pipeline: Any, device: torch.device) -> None:
    """Put rotary tables that a denoiser keeps as plain tensors on the device that it computes on.

    Lumina 2's are no buffers, so that diffusers 0.42.1 leaves them on the host and copies them in every
    call: three copies that the host waits for, and that a GPU stands still for. The values are the same.
    """
    if device.type != "cuda":
        return  # other devices compute them where they are
    for part in pipeline.components.values():
        for module in part.modules() if isinstance(part, torch.nn.Module) else ():
            tables = getattr(module, "freqs_cis", None)
            if isinstance(tables, list) and all(isinstance(table, torch.Tensor) for table in tables):
                setattr(module, "freqs_cis", [table.to(device) for table in tables])  # noqa: B010


def free_memory(device: torch.device) -> None:
    """Return the memory of what is no longer referenced to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
