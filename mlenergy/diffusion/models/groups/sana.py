"""Sana and SANA-1.5: linear attention over latents of 32 × 32 pixels each; Gemma 2 reads the text."""

from __future__ import annotations

from functools import partial

from mlenergy.diffusion.models.groups.common import GUIDED, ONE_TEXT, SIZE_256, SIZE_1024
from mlenergy.diffusion.models.spec import Family, ModelSpec

_NO_SEQUENCE = (
    "its linear attention sums keys times values over the whole image, for which xfuser 0.7.0 asks yunchang "
    "for an attention type that 0.6.4 does not have, and diffusers has no plan"
)

SANA = Family(
    name="sana",
    pipeline_class="SanaPipeline",
    denoiser="transformer",
    predicts="flow",
    text_encoders=ONE_TEXT,
    has_t5=False,
    size_step_px=32,
    takes_text_length=True,
    bins_resolution=True,
    cleans_captions=True,
    takes_attention_kernel=False,  # linear over the image, and masked across to the text
    # An instruction of 212 tokens stands before a prompt and none before a negative prompt; the pipeline
    # encodes both and hands the last tokens to the denoiser.
    template_tokens=(210, 0),
    modes={"xdit": GUIDED, "diffusers": GUIDED},
    reasons={
        "ulysses": _NO_SEQUENCE,
        "ring": _NO_SEQUENCE,
        "parallel-vae": "xfuser splits no decoder of AutoencoderDC",
        "pipefusion": "its convolutions need rows of neighbouring patches, which xfuser's stages do not have",
    },
    caches={},
)

_sana = partial(
    ModelSpec,
    family=SANA,
    guidance="classifier-free",
    max_sequence_length_limit=300,
    latent_factor=32,
    patch_size=1,
)
_sana15 = partial(
    _sana,
    default_steps=20,
    default_guidance_scale=4.5,
    default_dtype="bfloat16",
    default_max_sequence_length=300,
    heads=70,
    source="defaults: model card; shape and parameters: configuration counted on the meta device",
    **SIZE_1024,
)

FAMILIES = (SANA,)
LISTED = (
    _sana15(
        model_id="Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers", layers=20, parameters=4_531_234_115
    ),
    _sana15(
        model_id="Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers", layers=60, parameters=7_648_418_115
    ),
)
TINY = (
    _sana(
        model_id="tiny/sana",
        default_steps=4,
        default_guidance_scale=5.0,
        default_dtype="float32",
        default_max_sequence_length=64,
        heads=4,
        source="built in the process with random weights",
        **SIZE_256,
    ),
)
