"""SDXL's guidance on two ranks: whole halves of the batch, for any batch and any size."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch

from mlenergy.diffusion.engines.xdit.patches.patch import Patch


def sdxl_guidance_rows() -> list[Patch]:
    """Give each rank its half of the rows.

    xfuser gives one row to each rank, whatever the batch, and keeps the first call's buffers.
    """
    from xfuser.model_executor.pipelines import pipeline_stable_diffusion_xl

    return [Patch(pipeline_stable_diffusion_xl, "apply_unet_cfg_parallel_monkey_patch", lambda _: _halve)]


def _halve(pipeline: Any) -> Any:
    pipeline.unet.forward = MethodType(_forward_half, pipeline.unet)
    return pipeline


def _forward_half(
    self: Any,
    sample: torch.Tensor,
    timestep: Any,
    encoder_hidden_states: torch.Tensor,
    added_cond_kwargs: dict[str, torch.Tensor] | None = None,
    return_dict: bool = True,
    **others: Any,
) -> Any:
    """The UNet on this rank's half of the rows; both ranks return the whole output."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
    from xfuser.core.distributed import get_cfg_group

    group = get_cfg_group()

    def own(rows: torch.Tensor) -> torch.Tensor:
        half: torch.Tensor = rows.chunk(group.world_size, dim=0)[group.rank_in_group]
        return half

    output = type(self).forward(
        self,
        own(sample),
        timestep,
        own(encoder_hidden_states),
        added_cond_kwargs={name: own(rows) for name, rows in (added_cond_kwargs or {}).items()},
        return_dict=False,
        **others,
    )[0]
    whole = group.all_gather(output.contiguous(), dim=0)
    return UNet2DConditionOutput(sample=whole) if return_dict else (whole,)
