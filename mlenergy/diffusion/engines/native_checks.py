"""What the diffusers engine refuses before anything loads: no torch, for the planning room too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlenergy.diffusion.models.modes import NATIVE_MODES
from mlenergy.diffusion.models.refusals import uneven_batch
from mlenergy.errors import UserError

if TYPE_CHECKING:
    from mlenergy.diffusion.plan import Plan

_CLIP_TOKENS = 77  # stand before the T5's tokens in SD3's text


def check_native(plan: Plan) -> None:
    """Raise UserError with the first thing about the degrees that cannot work, and what would."""
    for check in (_modes, _heads, _tensor, _tokens, _text, _guidance, uneven_batch, _ring_dtype):
        line = check(plan)
        if line:
            raise UserError(line)


def split_text_tokens(plan: Plan) -> int:
    """Text tokens that are split along with the image's; 0 where the text is not in the sequence."""
    family = plan.spec.family
    if not family.text_tokens_in_sequence:
        return 0
    return (plan.max_sequence_length or 0) + (_CLIP_TOKENS if family.name == "sd3" else 0)


def _modes(plan: Plan) -> str | None:
    family, parallel = plan.spec.family.name, plan.parallel
    degrees = ("data", "cfg", "pipefusion", "ring", "ulysses", "tensor")
    wanted = {mode for mode in degrees if getattr(parallel, mode) > 1}
    wanted |= {"parallel-vae"} if parallel.parallel_vae else set()
    offered = NATIVE_MODES.get(family, frozenset())
    refused = sorted(wanted - offered)
    if not refused:
        return None
    return (
        f"--engine diffusers does not offer {', '.join(refused)} for {family}, "
        f"only {', '.join(sorted(offered)) or 'one process'}; use one of these, or --engine xdit"
    )


def _heads(plan: Plan) -> str | None:
    heads, ulysses = plan.spec.heads, plan.parallel.ulysses
    if heads is None or heads % ulysses == 0:
        return None
    return f"--ulysses_degree {ulysses} does not divide {heads} attention heads; use --ring_degree {ulysses}"


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


def _tokens(plan: Plan) -> str | None:
    parallel = plan.parallel
    if plan.tokens % parallel.sequence == 0:
        return None
    return (
        f"{plan.height_px} x {plan.width_px} pixels make {plan.tokens} image tokens, which ulysses "
        f"{parallel.ulysses} x ring {parallel.ring} = {parallel.sequence} processes cannot share evenly; "
        "use sizes that are multiples of 32"
    )


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


def _guidance(plan: Plan) -> str | None:
    if plan.parallel.cfg == 1:
        return None
    if plan.parallel.cfg != 2:
        return f"guidance has two halves, so {plan.parallel.cfg} processes cannot share them; use 2"
    if plan.spec.guidance != "classifier-free":
        return f"{plan.spec.model_id} runs no guidance batch to split; use other degrees"
    if plan.guidance_scale is None or plan.guidance_scale <= 1:
        scale = "none" if plan.guidance_scale is None else f"{plan.guidance_scale:g}"
        return f"guidance scale {scale} runs no guidance batch to split; use a scale above 1"
    return None


def _ring_dtype(plan: Plan) -> str | None:
    if plan.parallel.ring == 1 or plan.device == "cpu" or plan.dtype != "float32":
        return None
    return (
        "ring attention needs float16 or bfloat16 on a GPU (no float32 kernel of torch returns what rings "
        "merge by); use --workload.dtype bfloat16, or --ulysses_degree"
    )
