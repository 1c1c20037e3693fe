"""Wan 2.1: guidance is a second call of the denoiser; its VAE makes four frames of every latent frame."""

from __future__ import annotations

from functools import partial

from mlenergy.diffusion.models.groups.common import ONE_TEXT
from mlenergy.diffusion.models.spec import Family, ModelSpec

WAN = Family(
    name="wan",
    pipeline_class="WanPipeline",
    output="video",
    denoiser="transformer",
    predicts="flow",
    text_encoders=ONE_TEXT,
    has_t5=True,
    size_step_px=16,
    takes_text_length=True,
    separate_guidance=True,
    modes={"diffusers": frozenset({"data"})},
    caches={},
)
FAMILIES = (WAN,)

_wan = partial(
    ModelSpec,
    family=WAN,
    guidance="classifier-free",
    max_sequence_length_limit=512,
    frame_factor=4,
)
LISTED: tuple[ModelSpec, ...] = (
    _wan(
        model_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        default_steps=50,
        default_guidance_scale=5.0,
        default_dtype="bfloat16",
        default_max_sequence_length=512,
        default_height_px=480,
        default_width_px=832,
        default_num_frames=81,
        default_fps=16,
        heads=12,
        layers=30,
        source="defaults: model card",
    ),
)
TINY: tuple[ModelSpec, ...] = (
    _wan(
        model_id="tiny/wan",
        default_steps=4,
        default_guidance_scale=5.0,
        default_dtype="float32",
        default_max_sequence_length=64,
        default_height_px=64,
        default_width_px=96,
        default_num_frames=9,
        default_fps=8,
        heads=4,
        layers=3,
        source="built in the process with random weights",
    ),
)
