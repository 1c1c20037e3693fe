"""Caches over steps: turned on, forgotten between images, and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from mlenergy.diffusion.config.optimizations import STEP_CACHES
from mlenergy.diffusion.engines.optimizations.blocks import attention_layers, computing_blocks, feed_forwards
from mlenergy.diffusion.engines.optimizations.counting import Computed
from mlenergy.diffusion.models.spec import CacheMethod

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


class CacheWork:
    """One cache on one denoiser.

    Counted are the blocks of caches that skip whole steps, else the layers that the cache skips.
    """

    def __init__(self, pipeline: Any, plan: Plan) -> None:
        assert plan.optimizations.cache is not None
        self._method: CacheMethod = plan.optimizations.cache
        self._threshold = plan.optimizations.cache_threshold
        denoiser = getattr(pipeline, plan.spec.family.denoiser)
        self._computed = Computed(denoiser, _units(denoiser, self._method))
        if plan.engine == "xdit":
            from mlenergy.diffusion.engines.optimizations.caches_xfuser import turn_on
        else:
            from mlenergy.diffusion.engines.optimizations.caches_diffusers import turn_on
        self._forget: Callable[[], None] = turn_on(pipeline, plan)

    def begin_call(self) -> None:
        """An image begins: nothing of the one before may be reused for it."""
        self._forget()
        self._computed.begin_call()

    def record(self, warmup_calls: int) -> dict[str, Any]:
        """Method, threshold, and the share of the work that was really computed."""
        counts = self._computed.record(warmup_calls)
        last = counts.pop("last_unit_share")
        steps = last if self._method in STEP_CACHES else None
        return {
            "method": self._method,
            "threshold": self._threshold,
            **counts,
            "computed_steps_share": steps,
        }


def _units(denoiser: Any, method: CacheMethod) -> list[torch.nn.Module]:
    if method in STEP_CACHES:
        return computing_blocks(denoiser)
    attention = attention_layers(denoiser)
    if method == "taylorseer":
        return [*attention.values(), *feed_forwards(denoiser).values()]
    return list(attention.values())
