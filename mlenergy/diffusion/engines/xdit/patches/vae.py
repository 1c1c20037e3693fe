"""Parallel VAE: the finished latents reach every rank without new process groups."""

from __future__ import annotations

from typing import Any

import torch

from mlenergy.diffusion.engines.xdit.patches.patch import Patch

_MOST_DIMENSIONS = 8


def latents_without_new_groups() -> list[Patch]:
    """Broadcast from the rank that finished the image.

    xfuser forms a process group inside every call for this, and never destroys it: it costs time
    within the measured window and, over many calls, file descriptors.
    """
    from xfuser.model_executor.pipelines.base_pipeline import xFuserPipelineBaseWrapper

    return [Patch(xFuserPipelineBaseWrapper, "gather_broadcast_latents", lambda _: _broadcast_latents)]


def _broadcast_latents(self: Any, latents: torch.Tensor | None) -> torch.Tensor:
    """Latents of the one data-parallel group there is; config/checks/xdit.py sees to that."""
    from xfuser.core.distributed import get_runtime_state, get_world_group

    world = get_world_group()
    source = world.world_size - 1  # the last sequence, guidance and pipeline rank
    shape = torch.zeros(_MOST_DIMENSIONS + 1, dtype=torch.int64, device=self._execution_device)
    if world.rank == source:
        assert latents is not None
        shape[0] = latents.dim()
        shape[1 : 1 + latents.dim()] = torch.tensor(latents.shape)
    world.broadcast(shape, src=source)
    if world.rank != source:
        size = shape[1 : 1 + int(shape[0])].tolist()
        latents = torch.empty(size, dtype=get_runtime_state().runtime_config.dtype, device=shape.device)
    assert latents is not None
    return world.broadcast(latents.contiguous(), src=source)  # type: ignore[no-any-return]
