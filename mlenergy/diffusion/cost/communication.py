"""Bytes that one rank sends in one denoising step, by parallel mode."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.cost.costs import BYTES
from mlenergy.diffusion.cost.shape import Attention, Shape

if TYPE_CHECKING:
    from mlenergy.diffusion.config.parallelism import Parallelism
    from mlenergy.diffusion.models.spec import Dtype


@dataclass(frozen=True)
class Communication:
    """Bytes sent by one rank in one step; 0 where the mode is not used."""

    ulysses_bytes: int
    ring_bytes: int
    gather_bytes: int  # the shards of the noise prediction, brought together after each step
    cfg_bytes: int
    pipefusion_bytes: int
    tensor_bytes: int
    data_bytes: int = 0  # groups work on images of their own

    @property
    def total_bytes(self) -> int:
        """All modes together."""
        return sum(asdict(self).values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values and their sum."""
        return {**asdict(self), "total_bytes": self.total_bytes}


def communication_of(shape: Shape, parallel: Parallelism, dtype: Dtype) -> Communication:
    """Bytes that one rank sends in one step.

    The orders are those of table 1 of "xDiT: an Inference Engine for Diffusion Transformers with
    Massive Parallelism" (arXiv:2411.01738): with p tokens of width h and L layers, Ulysses on N
    ranks 4/N · p·h·L, ring 2 · p·h·L, tensor parallelism 4 · p·h·L, PipeFusion 2 · p·h. The
    factors below count what a rank itself sends, so each has its (degree − 1)/degree.
    """
    item = BYTES[dtype]
    attention = shape.attention
    prediction = shape.rows_per_rank * shape.cells * shape.latent_channels * item
    return Communication(
        ulysses_bytes=_ulysses(shape, attention, parallel, item),
        ring_bytes=_ring(shape, attention, parallel, item),
        gather_bytes=round(prediction * (shape.sequence - 1) / shape.sequence),
        cfg_bytes=round(prediction / shape.sequence * (parallel.cfg - 1)),
        pipefusion_bytes=_pipefusion(shape, attention, parallel, item),
        tensor_bytes=_tensor(shape, attention, parallel, item),
    )


def _layer_bytes(shape: Shape, attention: Attention, parallel: Parallelism, item: int) -> float:
    """One tensor of all tokens and full width, summed over the attentions that a stage's ranks run."""
    tokens = attention.joint_layers * shape.joint_tokens + attention.image_layers * shape.image_tokens
    return shape.rows_per_rank * tokens * attention.width * item / parallel.pipefusion


def _ulysses(shape: Shape, attention: Attention | None, parallel: Parallelism, item: int) -> int:
    """All-to-all of query, key, value and output; a rank keeps 1/degree of its own share."""
    if attention is None or parallel.ulysses == 1:
        return 0
    share = _layer_bytes(shape, attention, parallel, item) / shape.sequence
    return round(4 * share * (parallel.ulysses - 1) / parallel.ulysses)


def _ring(shape: Shape, attention: Attention | None, parallel: Parallelism, item: int) -> int:
    """Key and value blocks go round: degree − 1 sends of one block of 1/(ring × ulysses)."""
    if attention is None or parallel.ring == 1:
        return 0
    return round(2 * _layer_bytes(shape, attention, parallel, item) / shape.sequence * (parallel.ring - 1))


def _pipefusion(shape: Shape, attention: Attention | None, parallel: Parallelism, item: int) -> int:
    """The hidden states of all patches, once, to the next stage; the number of patches does not matter.

    HunyuanDiT's skips between the halves of its blocks come on top and are not counted.
    """
    if attention is None or parallel.pipefusion == 1:
        return 0
    tokens = shape.joint_tokens if attention.joint_layers else shape.image_tokens
    return round(shape.rows_per_rank * tokens * attention.width * item / shape.sequence)


def _tensor(shape: Shape, attention: Attention | None, parallel: Parallelism, item: int) -> int:
    """Two all-reduces a layer (after attention and after the MLP), each 2 (degree − 1)/degree in a ring."""
    if attention is None or parallel.tensor == 1:
        return 0
    once = 2 * (parallel.tensor - 1) / parallel.tensor
    return round(2 * once * _layer_bytes(shape, attention, parallel, item) / shape.sequence)
