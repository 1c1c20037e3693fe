"""Wan 2.1 and 2.2: guidance is a second call of the denoiser; 2.2's large model has two denoisers."""

from __future__ import annotations

from functools import partial
from typing import Any

from mlenergy.diffusion.models.groups.common import GUIDED, ONE_TEXT, SEQUENCE, TINY_VIDEO
from mlenergy.diffusion.models.spec import Family, ModelSpec

WAN = Family(
    name="wan",
    pipeline_class="WanPipeline",
    output="video",
    denoiser="transformer",
    second_denoiser="transformer_2",
    predicts="flow",
    text_encoders=ONE_TEXT,
    has_t5=True,
    size_step_px=16,
    takes_text_length=True,
    separate_guidance=True,
    shares_rows=False,
    exchanged_transformer="transformer_wan.xFuserWanTransformer3DWrapper",
    modes={"xdit": SEQUENCE | GUIDED | {"parallel-vae"}, "diffusers": SEQUENCE | GUIDED},
    fuses_qkv=True,
    # The other two count a denoiser's calls, of which guidance makes two a step.
    caches={"diffusers": frozenset({"fbcache", "taylorseer"})},
    reasons={"pipefusion": "xfuser has no pipeline of it"},
)
FAMILIES = (WAN,)

_wan = partial(
    ModelSpec,
    family=WAN,
    guidance="classifier-free",
    max_sequence_length_limit=512,
    frame_factor=4,
)
_card = partial(
    _wan,
    default_dtype="bfloat16",
    default_max_sequence_length=512,
    source="defaults: model card; shape and parameters: configuration counted on the meta device",
)
_720p: dict[str, Any] = {"default_height_px": 720, "default_width_px": 1280}
_81_frames: dict[str, Any] = {"default_num_frames": 81, "default_fps": 16}
LISTED: tuple[ModelSpec, ...] = (
    _card(
        model_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        default_steps=50,
        default_guidance_scale=5.0,
        default_height_px=480,
        default_width_px=832,
        heads=12,
        layers=30,
        parameters=7_226_799_667,
        **_81_frames,
    ),
    _card(
        model_id="Wan-AI/Wan2.1-T2V-14B-Diffusers",
        default_steps=50,
        default_guidance_scale=5.0,
        heads=40,
        layers=40,
        parameters=20_096_294_451,
        **_720p,
        **_81_frames,
    ),
    _card(
        model_id="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        default_steps=40,
        default_guidance_scale=4.0,
        default_guidance_scale_2=3.0,
        default_boundary_ratio=0.875,
        heads=40,
        layers=40,
        parameters=34_384_786_035,
        **_720p,
        **_81_frames,
    ),
    # Its VAE makes 16x16 pixels of a cell, and its denoiser takes a time step for each token.
    _card(
        model_id="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        default_steps=50,
        default_guidance_scale=5.0,
        default_height_px=704,
        default_width_px=1280,
        default_num_frames=121,
        default_fps=24,
        latent_factor=16,
        heads=24,
        layers=30,
        parameters=11_385_386_716,
    ),
)
_tiny = partial(
    _wan,
    default_guidance_scale=5.0,
    default_max_sequence_length=64,
    heads=4,
    layers=3,
    **TINY_VIDEO,
)
TINY: tuple[ModelSpec, ...] = (
    _tiny(model_id="tiny/wan"),
    _tiny(model_id="tiny/wan2.2", default_guidance_scale_2=3.0, default_boundary_ratio=0.875),
    _tiny(model_id="tiny/wan2.2-ti2v", latent_factor=16),
)
