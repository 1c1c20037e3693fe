"""FLOPs of a plan, stage by stage, from its architecture's counts. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.cost.costs import ComponentCosts, check_predictable, costs_of
from mlenergy.diffusion.cost.next_scale import image_costs
from mlenergy.diffusion.cost.shape import Shape, shape_of
from mlenergy.diffusion.models.architectures.reader import find_architecture

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.architectures.reader import Architecture


@dataclass(frozen=True)
class StageFlops:
    """FLOPs of one whole call (all its images), over all ranks together."""

    text_encode: int
    denoise_step: int  # of next-scale prediction the mean scale
    vae_decode: int
    steps: float  # calls of the denoiser; those that ran may differ between windows
    scales: tuple[int, ...] = ()  # of next-scale prediction: each of them

    @property
    def total(self) -> int:
        """Of the whole call."""
        return self.text_encode + round(self.steps * self.denoise_step) + self.vae_decode


def flops_of(plan: Plan, may_count: bool = True, text_tokens: float | None = None) -> StageFlops:
    """FLOPs of one iteration of `plan`, over all its ranks together.

    Args:
        plan: a checked plan.
        may_count: whether an architecture that nobody has counted yet may be counted now, by a child
            process that takes some seconds.
        text_tokens: of the mean row, as in `workload_of`.

    Raises:
        UserError: the architecture is not known, cannot be counted, or was not counted yet.
    """
    if plan.spec.next_scale is not None:
        return scale_flops(plan)
    check_predictable(plan)
    model = find_architecture(plan.weights_from, plan.revision)
    return whole_flops(plan, model, costs_of(model, may_count), text_tokens)


def scale_flops(plan: Plan) -> StageFlops:
    """FLOPs of one iteration of a model that predicts scales, over all ranks."""
    costs, images = image_costs(plan), plan.batch_size
    scales = tuple(round(images * flops) for flops in costs.scale_flops)
    return StageFlops(
        text_encode=round(images * costs.condition_flops),
        denoise_step=round(sum(scales) / len(scales)),
        vae_decode=round(images * costs.decode_flops),
        steps=len(scales),
        scales=scales,
    )


def whole_flops(
    plan: Plan, model: Architecture, costs: Mapping[str, ComponentCosts], text_tokens: float | None = None
) -> StageFlops:
    """FLOPs of one iteration over all ranks."""
    alone = replace(plan, parallel=Parallelism())
    text, step, decode = group_flops(model, costs, shape_of(alone, model, text_tokens))
    return StageFlops(round(text), round(step), round(decode), plan.steps)


def group_flops(
    model: Architecture, costs: Mapping[str, ComponentCosts], shape: Shape
) -> tuple[float, float, float]:
    """FLOPs of text encoding, one step and the decode, of the rows that one rank's group has."""
    work = shape.workload
    text = sum(
        costs[encoder.name].flops_at(shape.images_per_rank, 0, tokens)
        for encoder in model.text_encoders
        for tokens in work.encoded_tokens
    )
    step = costs[model.denoiser.name].flops_at(shape.rows_per_rank, shape.cells, work.t5_tokens or 0)
    return text, step, costs["vae"].flops_at(shape.images_per_rank, shape.decoded_cells, 0, shape.frame_cells)
