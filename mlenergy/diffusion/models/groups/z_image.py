"""Z-Image: text and image in one stream of tokens, padded to multiples of 32; rows come in lists."""

from __future__ import annotations

from functools import partial
from typing import Any

from mlenergy.diffusion.models.groups.common import GUIDED, ONE_TEXT, SEQUENCE, SIZE_256, SIZE_1024
from mlenergy.diffusion.models.spec import Family, ModelSpec

Z_IMAGE = Family(
    name="z-image",
    pipeline_class="ZImagePipeline",
    denoiser="transformer",
    predicts="flow",
    text_encoders=ONE_TEXT,
    has_t5=False,
    packed_cells=2,
    size_step_px=1,
    takes_text_length=True,
    pads_text=False,
    encoder_pads_text=True,
    unguided_scale=0.0,
    gives_sigmas=True,
    sequence_step=32,
    exchanged_transformer="transformer_z_image.xFuserZImageTransformer2DWrapper",
    unmasked_modes={"xdit": SEQUENCE},  # xfuser's attention takes no mask
    modes={"xdit": SEQUENCE | GUIDED, "diffusers": GUIDED},
    caches={},
    reasons={"pipefusion": "xfuser has no pipeline of it", "parallel-vae": "xfuser has no pipeline of it"},
)
FAMILIES = (Z_IMAGE,)

_text: dict[str, Any] = {"default_max_sequence_length": 512, "max_sequence_length_limit": 512}
_card = partial(
    ModelSpec,
    family=Z_IMAGE,
    default_dtype="bfloat16",
    heads=30,
    layers=34,
    parameters=10_261_196_515,
    source="defaults: model card; shape: configuration counted on the meta device",
    **_text,
    **SIZE_1024,
)
LISTED: tuple[ModelSpec, ...] = (
    _card(
        model_id="Tongyi-MAI/Z-Image",
        guidance="classifier-free",
        default_steps=50,
        default_guidance_scale=4.0,
    ),
    # Its card asks for 9 steps and a scale of 0: it was distilled with its guidance.
    _card(
        model_id="Tongyi-MAI/Z-Image-Turbo",
        guidance="classifier-free",
        default_steps=9,
        default_guidance_scale=0.0,
    ),
)
TINY: tuple[ModelSpec, ...] = (
    ModelSpec(
        model_id="tiny/z-image",
        family=Z_IMAGE,
        guidance="classifier-free",
        default_steps=4,
        default_guidance_scale=4.0,
        default_dtype="float32",
        heads=4,
        layers=5,
        source="built in the process with random weights",
        **_text,
        **SIZE_256,
    ),
)
