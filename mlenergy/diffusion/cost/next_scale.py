"""Costs of a plan whose model predicts scales: parameters, FLOPs, memory. No torch, no child process.

Its operators have the shapes of a fixed schedule, so every count is a formula of the sizes in `config`, whose
class chooses the formulas; tests hold each against what torch counts of the modules on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.cost.infinity import infinity_costs
from mlenergy.diffusion.cost.scale_costs import ScaleCosts, ScaleRequest
from mlenergy.diffusion.cost.var import var_costs
from mlenergy.diffusion.models.infinity import InfinityConfig
from mlenergy.diffusion.models.var import VarConfig

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

_COSTS: Mapping[type, Callable[[Any, ScaleRequest], ScaleCosts]] = {
    VarConfig: var_costs,
    InfinityConfig: infinity_costs,
}
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def image_costs(plan: Plan) -> ScaleCosts:
    """Costs of one image of a plan."""
    model = plan.spec.next_scale
    assert model is not None and plan.schedule is not None and plan.top_k is not None
    guided = plan.runs_guidance_batch
    request = ScaleRequest(
        schedule=plan.schedule,
        rows=2 if guided else 1,
        texts=2 if guided and plan.negative_prompt is not None else 1,
        text_tokens=plan.max_sequence_length,
        itemsize=_BYTES[plan.dtype],
        top_k=plan.top_k,
    )
    return _COSTS[type(model.config)](model.config, request)
