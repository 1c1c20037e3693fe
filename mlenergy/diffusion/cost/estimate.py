"""A plan -> the memory of its fullest rank, and nothing else: quick enough for a run that is ending."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.cost.memory import MemoryEstimate, memory_of
from mlenergy.diffusion.cost.shape import shape_of
from mlenergy.diffusion.models.architectures.reader import find_architecture

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


def estimate_memory(plan: Plan) -> MemoryEstimate:
    """Memory of the rank that holds most; `fits` is None.

    An architecture that this package does not ship is counted by a child process the first time,
    which takes some seconds.

    Raises:
        UserError: the model's architecture is unknown or cannot be counted.
    """
    model = find_architecture(plan.weights_from, plan.revision)
    return memory_of(plan, model, costs_of(model), shape_of(plan, model), None)
