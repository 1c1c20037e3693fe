"""Schedulers while an image is spread over ranks: DDPM's noise, flow-match Euler's waits."""

from __future__ import annotations

from typing import Any

import torch

from mlenergy.diffusion.engines.xdit.patches.patch import Patch


def ddpm_noise_of_the_whole_image() -> list[Patch]:
    """Draw DDPM's noise for the whole image and use this rank's rows of it.

    xfuser draws a noise of the shard's shape, which is the first rows' noise on every rank.
    """
    from xfuser.model_executor.schedulers.scheduling_ddpm import xFuserDDPMSchedulerWrapper

    return [Patch(xFuserDDPMSchedulerWrapper, "step", _step_on_the_whole_image)]


def _step_on_the_whole_image(original: Any) -> Any:
    def step(
        self: Any, model_output: Any, timestep: Any, sample: Any, generator: Any = None, **options: Any
    ) -> Any:
        rows, latent_height = _own_rows()
        if rows is None:
            return self.module.step(model_output, timestep, sample, generator, **options)
        _same_noise_for_every_patch(self, generator)
        whole = [_placed(tensor, rows, latent_height) for tensor in (model_output, sample)]
        # The step is elementwise but for the noise: what stands in the other rows does not matter.
        result = self.module.step(
            whole[0], timestep, whole[1], generator, **{**options, "return_dict": False}
        )
        return (torch.cat([result[0][:, :, begin:end] for begin, end in rows], dim=2),)

    return step


def _own_rows() -> tuple[list[list[int]] | None, int]:
    """Begin and end, in latent rows of the whole image, of what this rank is stepping; None for all."""
    from xfuser.core.distributed import (
        get_pipeline_parallel_world_size,
        get_runtime_state,
        get_sequence_parallel_world_size,
    )

    if get_pipeline_parallel_world_size() == 1 and get_sequence_parallel_world_size() == 1:
        return None, 0
    state = get_runtime_state()
    rows = state.pp_patches_start_end_idx_global
    if state.patch_mode:
        rows = [rows[state.pipeline_patch_idx]]
    return rows, state.input_config.height // state.vae_scale_factor


def _placed(tensor: torch.Tensor, rows: list[list[int]], latent_height: int) -> torch.Tensor:
    """A whole image's tensor, (batch, channels, height, width), with the rank's rows where they belong."""
    batch, channels, _, width = tensor.shape
    whole = tensor.new_zeros(batch, channels, latent_height, width)
    done = 0
    for begin, end in rows:
        whole[:, :, begin:end] = tensor[:, :, done : done + end - begin]
        done += end - begin
    return whole


def _same_noise_for_every_patch(wrapper: Any, generator: Any) -> None:
    """PipeFusion steps patch by patch: each takes its rows of one noise, so it is drawn anew alike."""
    from xfuser.core.distributed import get_runtime_state

    state = get_runtime_state()
    generators = generator if isinstance(generator, list) else [generator]
    if not state.patch_mode or generators[0] is None:
        return
    if state.pipeline_patch_idx == 0:
        wrapper.__dict__["_noise_state"] = [one.get_state() for one in generators]
        return
    for one, noise_state in zip(generators, wrapper.__dict__["_noise_state"], strict=True):
        one.set_state(noise_state)


def flow_euler_steps_as_diffusers() -> list[Patch]:
    """Step flow-match Euler by diffusers' own step, which is elementwise.

    xfuser compares a noise level on the GPU with two limits, so that the host waits for every step, and
    draws a noise of the latents' size that it does not use.
    """
    from xfuser.model_executor.schedulers.scheduling_flow_match_euler_discrete import (
        xFuserFlowMatchEulerDiscreteSchedulerWrapper,
    )

    return [Patch(xFuserFlowMatchEulerDiscreteSchedulerWrapper, "step", lambda _: _flow_euler_step)]


def _flow_euler_step(self: Any, model_output: Any, timestep: Any, sample: Any, **options: Any) -> Any:
    from xfuser.core.distributed import get_runtime_state

    result = self.module.step(model_output, timestep, sample, **options)
    state = get_runtime_state()
    if state.patch_mode and state.pipeline_patch_idx < state.num_pipeline_patch - 1:
        self.module._step_index -= 1  # PipeFusion's other patches take the same step
    return result
