"""Latte: layers over each frame and layers over time in turn; guidance is half of the batch."""

from __future__ import annotations

from functools import partial

from mlenergy.diffusion.models.groups.common import GUIDED, ONE_TEXT, SEQUENCE, TINY_VIDEO
from mlenergy.diffusion.models.spec import Family, ModelSpec

LATTE = Family(
    name="latte",
    pipeline_class="LattePipeline",
    output="video",
    denoiser="transformer",
    predicts="noise",
    text_encoders=ONE_TEXT,
    has_t5=True,
    cleans_captions=True,
    frames_argument="video_length",
    fixed_frames=True,
    takes_attention_kernel=False,
    counts_as_run=True,
    has_cost_model=False,
    modes={"xdit": SEQUENCE | {"data"}, "diffusers": GUIDED},
    caches={},
    reasons={
        "ulysses": "diffusers has no plan of its transformer",
        "ring": "diffusers has no plan of its transformer",
        "cfg": "xfuser's pipeline computes both halves of the guidance batch on each of the two processes",
        "pipefusion": "xfuser has none for it",
        "tensor": "diffusers has no plan of its transformer",
        "parallel-vae": "it has not been held to parity",
    },
)

_latte = partial(
    ModelSpec,
    family=LATTE,
    guidance="classifier-free",
    default_guidance_scale=7.5,
    default_max_sequence_length=None,
    max_sequence_length_limit=None,
    default_fps=8,
)

FAMILIES = (LATTE,)
LISTED: tuple[ModelSpec, ...] = (
    _latte(
        model_id="maxin-cn/Latte-1",
        default_steps=50,
        default_dtype="float16",
        default_height_px=512,
        default_width_px=512,
        default_num_frames=16,
        heads=16,
        layers=56,
        source="defaults: diffusers' LattePipeline and the authors' configuration of its samples; shape: "
        "from memory",
    ),
)
TINY: tuple[ModelSpec, ...] = (
    _latte(
        model_id="tiny/latte",
        heads=4,
        layers=4,
        **TINY_VIDEO,
    ),
)
