"""xfuser's caches for FLUX: TeaCache and first-block cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


def enable_cache(pipeline: Any, plan: Plan) -> Callable[[], None]:
    """Put xfuser's cached blocks in the place of the transformer's; the returned function makes them forget.

    xfuser itself leaves a cache out, with a line in its log, where guidance, PipeFusion or tensor
    parallelism is on; plans with these are refused (config/checks/optimizations.py).
    """
    from xfuser.model_executor.cache.adapters import apply_cache

    apply_cache(
        cache_method=plan.optimizations.cache,
        num_steps=plan.steps,
        pipe=pipeline,
        transformer=pipeline.transformer,
        preset_kwargs={"residual_diff_threshold": plan.optimizations.cache_threshold},
    )
    (cached,) = pipeline.transformer.transformer_blocks
    # Its threshold is made on the CPU, and would be copied in every step.
    device = next(pipeline.transformer.parameters()).device
    for part in (cached, cached.cache_context, getattr(cached, "rescale_func", None)):
        if part is not None:
            _move_buffers(part, device)
    if plan.parallel.sequence > 1:
        _agree_by_sum(cached)
    return lambda: _forget(cached)


def _move_buffers(part: Any, device: torch.device) -> None:
    for name, buffer in list(part._buffers.items()):
        if buffer is not None:
            part._buffers[name] = buffer.to(device)


def _agree_by_sum(cached: Any) -> None:
    """The mean over the ranks that share an image, by a sum: gloo knows no mean."""
    from xfuser.core.distributed import get_sequence_parallel_world_size, get_sp_group

    def mean(value: torch.Tensor, op: Any = None) -> torch.Tensor:
        total: torch.Tensor = get_sp_group().all_reduce(value)
        return total / int(get_sequence_parallel_world_size())

    cached.all_reduce = mean


def _forget(cached: Any) -> None:
    """As new: xfuser keeps the last image's residuals, and would compare and reuse them for the next."""
    context = cached.cache_context
    context.modulated_inputs = None
    context.hidden_states_residual = None
    context.encoder_hidden_states_residual = None
    cached.cnt = torch.zeros_like(cached.cnt)
    cached.accumulated_rel_l1_distance = torch.zeros_like(cached.accumulated_rel_l1_distance)
    cached.use_cache = torch.zeros((), dtype=torch.bool, device=cached.use_cache.device)
