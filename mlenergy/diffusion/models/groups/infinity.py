"""Infinity, images from text by next-scale prediction of bits: its family, and the published models.

The hub has both in one repository, FoundationVision/Infinity, as files: so they are listed by short names,
and the engine is this package's own.
"""

from __future__ import annotations

from mlenergy.diffusion.models import infinity
from mlenergy.diffusion.models.infinity import InfinityConfig
from mlenergy.diffusion.models.infinity_sizes import SIZES
from mlenergy.diffusion.models.next_scale import NextScale
from mlenergy.diffusion.models.spec import Dtype, Family, ModelSpec

INFINITY = Family(
    name="infinity",
    pipeline_class="Infinity",
    denoiser="transformer",
    predicts="scales",
    text_encoders=("text_encoder",),
    modes={"autoregressive": frozenset({"data"})},
    caches={},
    has_t5=True,
    takes_text_length=True,
)

# The published sampling. The values of a bit are two, so that top_k does nothing.
_TOP_K, _TOP_P = 900, 0.97
# Prompts are padded to one length; at the limit of 512 padding alone would be 3 % of a short prompt's work.
_TEXT_TOKENS = 256


def _spec(
    model_id: str,
    config: InfinityConfig,
    files: dict[str, str],
    side_px: int,
    guidance_scale: float,
    dtype: Dtype,
    parameters: int | None,
    source: str,
) -> ModelSpec:
    schedules = {size: scales.scales for size, scales in SIZES.items()}
    return ModelSpec(
        model_id=model_id,
        family=INFINITY,
        guidance="classifier-free",
        default_steps=len(schedules[side_px, side_px]),
        default_guidance_scale=guidance_scale,
        default_dtype=dtype,
        default_height_px=side_px,
        default_width_px=side_px,
        default_max_sequence_length=min(_TEXT_TOKENS, config.text_tokens),
        max_sequence_length_limit=config.text_tokens,
        heads=config.heads,
        layers=config.depth,
        latent_factor=config.vae.stride,
        patch_size=config.patch,
        parameters=parameters,
        next_scale=NextScale(
            config=config,
            schedules=schedules,
            files=files,
            source=infinity.HUB_ID if files else None,
            classes=None,
            top_k=_TOP_K,
            top_p=_TOP_P,
            text_encoder=config.text.source,
        ),
        source=source,
    )


_COUNTED = (
    "defaults: {}; parameters: counted on the meta device, with flan-t5-xl's encoder and without the VAE's"
)

FAMILIES: tuple[Family, ...] = (INFINITY,)
LISTED: tuple[ModelSpec, ...] = (
    _spec(
        "infinity-2b",
        infinity.INFINITY_2B,
        infinity.FILES_2B,
        *(1024, 4.0, "bfloat16", 3_493_183_811),
        _COUNTED.format("the authors' scripts/infer.sh"),
    ),
    _spec(
        "infinity-8b",
        infinity.INFINITY_8B,
        infinity.FILES_8B,
        *(1024, 3.0, "bfloat16", 9_647_803_859),
        _COUNTED.format("the authors' notebook of the 8B"),
    ),
)
TINY: tuple[ModelSpec, ...] = (
    _spec(
        "tiny/infinity",
        infinity.TINY,
        {},
        *(256, 4.0, "float32", None),
        "built in the process with random weights",
    ),
)
