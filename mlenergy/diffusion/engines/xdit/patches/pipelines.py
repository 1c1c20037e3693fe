"""Pipelines: SD3's text length, SDXL's guidance on two ranks, a parallel VAE's latents, wrong devices."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch

from mlenergy.diffusion.engines.xdit.patches.patch import Patch

_MOST_DIMENSIONS = 8  # of latents, so that their shape travels in a tensor of fixed size


def sd3_text_length() -> list[Patch]:
    """Pass ``max_sequence_length`` on to the text encoders.

    xfuser's parallel call swallows it, so that many ranks always encode 256 tokens.
    """
    from xfuser import xFuserStableDiffusion3Pipeline

    return [
        Patch(xFuserStableDiffusion3Pipeline, "__call__", _remember_text_length),
        Patch(xFuserStableDiffusion3Pipeline, "encode_prompt", lambda _: _encode_at_that_length),
    ]


def _remember_text_length(original: Any) -> Any:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        self._requested_text_tokens = options.get("max_sequence_length")
        return original(self, *args, **options)

    return call


def _encode_at_that_length(self: Any, *args: Any, **options: Any) -> Any:
    if self._requested_text_tokens is not None:
        options.setdefault("max_sequence_length", self._requested_text_tokens)
    return self.module.encode_prompt(*args, **options)


def sdxl_guidance_rows() -> list[Patch]:
    """Give each rank its half of the rows.

    xfuser gives one row to each rank, whatever the batch, and keeps the first call's buffers.
    """
    from xfuser.model_executor.pipelines import pipeline_stable_diffusion_xl

    return [
        Patch(pipeline_stable_diffusion_xl, "apply_unet_cfg_parallel_monkey_patch", lambda _: _halve_unet)
    ]


def _halve_unet(pipeline: Any) -> Any:
    pipeline.unet.forward = MethodType(_forward_half_of_rows, pipeline.unet)
    return pipeline


def _forward_half_of_rows(
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


def latents_without_new_groups() -> list[Patch]:
    """Broadcast from the rank that finished the image.

    xfuser forms a process group inside every call for this, and never destroys it: it costs time
    within the measured window and, over many calls, file descriptors.
    """
    from xfuser.model_executor.pipelines.base_pipeline import xFuserPipelineBaseWrapper

    return [Patch(xFuserPipelineBaseWrapper, "gather_broadcast_latents", lambda _: _broadcast_latents)]


def _broadcast_latents(self: Any, latents: torch.Tensor | None) -> torch.Tensor:
    """Latents of the one data-parallel group there is; config/checks/xdit.py refuses others."""
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


def hunyuandit_rotary_on_device() -> list[Patch]:
    """Put HunyuanDiT's rotary embedding on the rank's device once a call.

    xfuser makes it on the CPU, and every attention layer then copies it in every step, each time waiting.
    """
    from xfuser.model_executor.pipelines import pipeline_hunyuandit

    return [Patch(pipeline_hunyuandit, "get_2d_rotary_pos_embed", _on_own_device)]


def _on_own_device(original: Any) -> Any:
    def embedding(*args: Any, **options: Any) -> Any:
        return tuple(part.to(_own_device(0)) for part in original(*args, **options))

    return embedding


def caches_on_own_device() -> list[Patch]:
    """Make the caches' buffers on the rank's device.

    xfuser makes them on the first GPU, where every rank then holds a context of some hundred MB.
    """
    from xfuser.model_executor.cache import utils

    return [Patch(utils, "get_device", lambda _: _own_device)]


def _own_device(_: int) -> torch.device:
    from xfuser.core.distributed import get_world_group

    device: torch.device = get_world_group().device
    return device
