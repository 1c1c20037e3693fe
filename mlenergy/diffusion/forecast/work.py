"""One rank's work in one iteration, in the quantities that a forecast takes. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mlenergy.diffusion.cost.communication import communication_of
from mlenergy.diffusion.cost.costs import ComponentCosts
from mlenergy.diffusion.cost.kernel_work import KernelWork
from mlenergy.diffusion.cost.shape import Shape, shape_of
from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.architectures.reader import Architecture


_OF_CALL = ("matmul_flops_a_row", "kernels")  # the same for one row of the batch and for many


@dataclass(frozen=True)
class IterationWork:
    """Work of the busiest rank in one iteration, and of all.

    Attributes:
        text: of all text encoders, which every rank of a group runs.
        step: of all calls of the denoiser in a step: guidance may be a second one.
        decode: of the VAE's decoder.
        steps: of denoising.
        images: that the busiest rank decodes; 0 of videos.
        video_pixels: of all frames that the busiest rank decodes; 0 of images.
        sequence_tokens: of the denoiser's longest attention.
        gpus: ranks.
        decoding_gpus: ranks that decode as much as the busiest one.
        attentions: attention calls of a step that exchange tokens between ranks.
        query_bytes: bytes of one attention's queries on this rank, over all attentions of a step.
        ulysses, ring: degrees.
        ulysses_bytes, ring_bytes, other_bytes: that a rank sends in a step; the last one by all other modes.
    """

    text: KernelWork
    step: KernelWork
    decode: KernelWork
    steps: float
    images: float
    video_pixels: float
    sequence_tokens: float
    gpus: int
    decoding_gpus: int
    attentions: float
    query_bytes: float
    ulysses: int
    ring: int
    ulysses_bytes: float
    ring_bytes: float
    other_bytes: float


def work_of(plan: Plan, model: Architecture, costs: Mapping[str, ComponentCosts]) -> IterationWork:
    """Work of one iteration of a plan.

    Raises:
        UserError: the kernels of a component were not counted.
    """
    if not all(part.kernels for part in costs.values()):
        raise UserError("the kernels of this model were not counted, so that its time cannot be forecast")
    shape, parallel = shape_of(plan, model), plan.parallel
    sent = communication_of(shape, parallel, plan.dtype)
    attention = shape.attention
    layers = 0.0 if attention is None else attention.layers / parallel.pipefusion
    query_elements = 0.0
    if attention is not None:
        tokens = attention.joint_layers * shape.joint_tokens + attention.image_layers * shape.image_tokens
        query_elements = shape.rows_per_rank * tokens * attention.width / shape.sequence / parallel.pipefusion
    group = parallel.world_size // parallel.data
    decoded = shape.images_per_rank / (group if parallel.parallel_vae else 1)
    text = KernelWork()
    for encoder in model.text_encoders:
        for tokens_padded in shape.workload.encoded_tokens:
            text += _calls(costs[encoder.name], shape.images_per_rank, 0, tokens_padded)
    return IterationWork(
        text=text,
        step=_step(plan, costs[model.denoiser.name], shape),
        decode=_calls(costs["vae"], decoded, shape.decoded_cells, 0, shape.frame_cells),
        steps=plan.steps,
        images=0.0 if plan.makes_video else decoded,
        video_pixels=decoded * (plan.num_frames or 0) * plan.height_px * plan.width_px,
        sequence_tokens=shape.joint_tokens,
        gpus=parallel.world_size,
        decoding_gpus=parallel.world_size if parallel.parallel_vae else parallel.data,
        attentions=layers * plan.denoiser_calls_each_step if shape.sequence > 1 else 0.0,
        query_bytes=2 * query_elements,
        ulysses=parallel.ulysses,
        ring=parallel.ring,
        ulysses_bytes=sent.ulysses_bytes,
        ring_bytes=sent.ring_bytes,
        other_bytes=sent.total_bytes - sent.ulysses_bytes - sent.ring_bytes,
    )


def _step(plan: Plan, denoiser: ComponentCosts, shape: Shape) -> KernelWork:
    """The rank's share: its tokens of everything but attention, and its part of all attention.

    Text is shared out with the image where both stand in one sequence and the ranks divide it; otherwise each
    rank has all of it (xfuser 0.7.0, and 0.4.5, of the published runs).
    """
    ranks, text = shape.sequence, shape.workload.t5_tokens or 0
    joins = shape.attention is not None and shape.attention.joint_layers > 0
    own_text = text / ranks if joins and shape.text_tokens % ranks == 0 else text
    calls = plan.denoiser_calls_each_step
    whole = _calls(denoiser, shape.rows_per_rank, shape.cells, text, calls=calls)
    own = _calls(denoiser, shape.rows_per_rank, shape.cells / ranks, own_text, calls=calls)
    layers = plan.parallel.pipefusion * plan.parallel.tensor
    shared = asdict(own) | {
        "attention_flops": whole.attention_flops / ranks,
        "attention_scores": whole.attention_scores / ranks,
    }
    # Each of the patches of PipeFusion starts the kernels of its stage anew.
    split = {name: value / layers for name, value in shared.items()}
    return KernelWork(**split | {"kernels": own.kernels / plan.parallel.pipefusion})


def _calls(
    part: ComponentCosts, rows: float, cells: float, text: float, frame: float = 0, calls: int = 1
) -> KernelWork:
    """Work of some calls with so many rows together."""
    one = part.kernels_at(cells, text, frame)
    return KernelWork(**{name: value * (calls if name in _OF_CALL else rows) for name, value in one.items()})
