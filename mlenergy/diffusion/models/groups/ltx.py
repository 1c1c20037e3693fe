"""LTX-Video: its VAE makes 32x32 pixels and eight frames of a latent cell; guidance is half of the batch."""

from __future__ import annotations

from functools import partial

from mlenergy.diffusion.models.groups.common import GUIDED, ONE_TEXT, SEQUENCE, TINY_VIDEO, TRANSFORMER_CACHES
from mlenergy.diffusion.models.spec import Family, ModelSpec

LTX = Family(
    name="ltx",
    pipeline_class="LTXPipeline",
    output="video",
    denoiser="transformer",
    predicts="flow",
    text_encoders=ONE_TEXT,
    has_t5=True,
    size_step_px=32,
    takes_text_length=True,
    takes_frame_rate=True,
    gives_sigmas=True,
    shares_rows=False,
    modes={"diffusers": SEQUENCE | GUIDED},
    caches={"diffusers": TRANSFORMER_CACHES - {"fastercache"}},  # whose input has to have frames and rows
)
FAMILIES = (LTX,)

_ltx = partial(
    ModelSpec,
    family=LTX,
    guidance="classifier-free",
    default_guidance_scale=3.0,
    max_sequence_length_limit=256,
    latent_factor=32,
    patch_size=1,
    frame_factor=8,
)
LISTED: tuple[ModelSpec, ...] = (
    _ltx(
        model_id="Lightricks/LTX-Video",
        default_steps=50,
        default_dtype="bfloat16",
        default_max_sequence_length=128,
        default_height_px=512,
        default_width_px=704,
        default_num_frames=161,
        default_fps=25,
        heads=32,
        layers=28,
        parameters=7_104_889_777,
        source="defaults: diffusers' LTXPipeline; shape: configuration counted on the meta device",
    ),
)
TINY: tuple[ModelSpec, ...] = (
    _ltx(
        model_id="tiny/ltx",
        default_max_sequence_length=64,
        heads=4,
        layers=3,
        **TINY_VIDEO,
    ),
)
