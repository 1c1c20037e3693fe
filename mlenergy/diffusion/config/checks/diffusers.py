"""What the diffusers engine alone cannot do: tensor parallelism beside others, uneven texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


_CLIP_TOKENS = 77  # stand before the T5's tokens in SD3's text


def split_text_tokens(plan: Plan) -> int:
    """Text tokens that are split along with the image's; 0 where the text is not in the sequence."""
    family = plan.spec.family
    if not family.text_tokens_in_sequence:
        return 0
    return (plan.max_sequence_length or 0) + (_CLIP_TOKENS if family.name == "sd3" else 0)


def _tensor(plan: Plan) -> str | None:
    heads, parallel = plan.spec.heads, plan.parallel
    if parallel.tensor > 1 and parallel.sequence > 1:
        return (
            f"diffusers does not combine tensor {parallel.tensor} with ulysses {parallel.ulysses} x ring "
            f"{parallel.ring}; use one of them, beside --data_parallel_degree"
        )
    if heads is None or heads % parallel.tensor == 0:
        return None
    fits = [str(degree) for degree in range(1, min(heads, 16) + 1) if heads % degree == 0]
    return f"tensor {parallel.tensor} does not divide {heads} attention heads; use one of {', '.join(fits)}"


def _text(plan: Plan) -> str | None:
    parallel, text = plan.parallel, split_text_tokens(plan)
    uneven = text % parallel.sequence
    if not uneven or parallel.ring == 1 or parallel.ulysses == 1:
        return None  # diffusers shares an uneven text out where only one of the two is used
    length = plan.max_sequence_length or 0
    fits = length - uneven if length > uneven else length - uneven + parallel.sequence
    return (
        f"{text} text tokens cannot be shared evenly by ulysses {parallel.ulysses} x ring {parallel.ring} = "
        f"{parallel.sequence} processes; use --workload.max_sequence_length {fits}, or ulysses or ring alone"
    )


CHECKS = (_tensor, _text)
