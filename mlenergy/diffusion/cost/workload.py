"""What decides the work of one image, as data: no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.architectures.reader import Architecture

CLIP_TOKENS = 77  # CLIP's and HunyuanDiT's BERT length; every prompt is padded to it
_DEFAULT_T5_TOKENS = 256


@dataclass(frozen=True)
class Workload:
    """One call of a pipeline.

    images: of the whole call, over all data-parallel groups.
    guidance_rows: rows of the denoiser's batch for each image: 2 under classifier-free guidance.
    text_passes: how often each text encoder is called: 2 where the negative prompt is encoded, too.
    t5_tokens: padded length of the long text encoder; None where the pipeline has none.
    """

    height_px: int
    width_px: int
    images: int
    guidance_rows: int
    text_passes: int
    t5_tokens: int | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and for hashing."""
        return asdict(self)


def workload_of(plan: Plan, architecture: Architecture) -> Workload:
    """The work of one iteration of `plan`."""
    guided = plan.runs_guidance_batch
    # SDXL takes zeros, not an encoded empty prompt, where no negative prompt is given.
    zeros = bool(architecture.options.get("force_zeros_for_empty_prompt")) and plan.negative_prompt is None
    return Workload(
        height_px=plan.height_px,
        width_px=plan.width_px,
        images=plan.batch_size,
        guidance_rows=2 if guided else 1,
        text_passes=2 if guided and not zeros else 1,
        t5_tokens=t5_tokens(architecture, plan.max_sequence_length),
    )


def t5_tokens(architecture: Architecture, max_sequence_length: int | None) -> int | None:
    """Padded length of the T5 encoder's input; None for a pipeline without one."""
    if not any(part.class_name == "T5EncoderModel" for part in architecture.text_encoders):
        return None
    fixed = architecture.denoiser.config.get("text_len_t5")  # HunyuanDiT's denoiser is built for one length
    if fixed is not None:
        return int(fixed)
    return max_sequence_length if max_sequence_length is not None else _DEFAULT_T5_TOKENS
