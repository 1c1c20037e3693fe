"""Limits of the diffusers engine alone: tensor parallelism beside others, uneven texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


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
    parallel, text = plan.parallel, plan.text_tokens_in_sequence
    if text and not plan.spec.family.pads_text and parallel.ring > 1 and parallel.ulysses > 1:
        return (
            f"the text of {plan.spec.family.name} models is as long as the prompt, which ulysses "
            f"{parallel.ulysses} x ring {parallel.ring} in diffusers can share only where it divides evenly; "
            "use ulysses or ring alone, or --engine xdit"
        )
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
