"""How often a rank calls its denoiser in each step, where that is known and uneven."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


def denoiser_calls(plan: Plan) -> list[int] | None:
    """Calls of each step in order, None for the same number in every step.

    PipeFusion runs the whole image in its synchronous steps and a patch at a time afterwards.
    """
    synchronous = plan.parallel.pipefusion_warmup_steps
    if plan.engine != "xdit" or plan.parallel.pipefusion == 1 or plan.steps <= synchronous:
        return None
    return [1] * synchronous + [plan.parallel.pipeline_patches] * (plan.steps - synchronous)
