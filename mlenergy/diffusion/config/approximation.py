"""Whether a plan's images are exactly those of one rank; no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


def approximation(plan: Plan) -> str | None:
    """Why the images are not exactly those of one rank, or None where they are."""
    parallel = plan.parallel
    if plan.engine != "xdit" or parallel.pipefusion == 1 or pipeline_patches(plan) == 1:
        return None
    stale = plan.steps - parallel.pipefusion_warmup_steps
    if stale <= 0:
        return None
    return (
        f"PipeFusion with {pipeline_patches(plan)} patches: {stale} of {plan.steps} steps use activations "
        "of the step before"
    )


def pipeline_patches(plan: Plan) -> int:
    """Patches that PipeFusion is asked for: as many as it has stages, where none are named."""
    return plan.parallel.num_pipeline_patch or plan.parallel.pipefusion
