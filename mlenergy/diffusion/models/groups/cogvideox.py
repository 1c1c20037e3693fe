"""CogVideoX: text and video in one sequence, guidance as two halves of a batch; 1.5 joins pairs of frames."""

from __future__ import annotations

from functools import partial
from typing import Any

from mlenergy.diffusion.models.groups.common import GUIDED, ONE_TEXT, SEQUENCE, TINY_VIDEO, TRANSFORMER_CACHES
from mlenergy.diffusion.models.spec import Family, ModelSpec

COGVIDEOX = Family(
    name="cogvideox",
    pipeline_class="CogVideoXPipeline",
    denoiser="transformer",
    predicts="noise",
    text_encoders=ONE_TEXT,
    has_t5=True,
    text_tokens_in_sequence=True,
    takes_text_length=True,
    frame_step=8,  # of an even number of latent frames its VAE makes three frames too many
    always_guided=True,
    output="video",
    modes={"xdit": SEQUENCE | GUIDED, "diffusers": GUIDED},
    fuses_qkv=True,
    caches={"diffusers": TRANSFORMER_CACHES},
    reasons={
        "pipefusion": "xfuser has none for it",
        "parallel-vae": "DistVAE knows no decoder of AutoencoderKLCogVideoX",
        "tensor": "diffusers has no plan of its transformer",
    },
)

_cogvideox = partial(
    ModelSpec,
    family=COGVIDEOX,
    guidance="classifier-free",
    default_guidance_scale=6.0,
    default_max_sequence_length=226,
    max_sequence_length_limit=226,
    frame_factor=4,
)
_card = partial(
    _cogvideox,
    default_steps=50,
    source="defaults: model card; shape and parameters: configuration counted on the meta device",
)
_first: dict[str, Any] = {
    "default_height_px": 480,
    "default_width_px": 720,
    "default_num_frames": 49,
    "default_fps": 8,
}

FAMILIES = (COGVIDEOX,)
LISTED: tuple[ModelSpec, ...] = (
    # Its positions are a table that is laid out for 226 text tokens.
    _card(
        model_id="zai-org/CogVideoX-2b",
        default_dtype="float16",
        heads=30,
        layers=30,
        text_length_is_fixed=True,
        parameters=6_671_678_435,
        **_first,
    ),
    _card(
        model_id="zai-org/CogVideoX-5b",
        default_dtype="bfloat16",
        heads=48,
        layers=42,
        parameters=10_548_177_635,
        **_first,
    ),
    _card(
        model_id="zai-org/CogVideoX1.5-5B",
        default_dtype="bfloat16",
        heads=48,
        layers=42,
        patch_frames=2,
        parameters=10_548_570_915,
        default_height_px=768,
        default_width_px=1360,
        default_num_frames=81,
        default_fps=16,
    ),
)

_tiny = partial(
    _cogvideox,
    heads=4,
    layers=3,
    **TINY_VIDEO,
)
TINY: tuple[ModelSpec, ...] = (
    _tiny(model_id="tiny/cogvideox"),
    _tiny(model_id="tiny/cogvideox-2b", text_length_is_fixed=True),
    _tiny(model_id="tiny/cogvideox1.5", patch_frames=2),
)
