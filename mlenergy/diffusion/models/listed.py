"""The listed models: defaults and shapes, each from the place its `source` names.

Where this project fixes a default of its own (FLUX.1-dev, SDXL, PixArt, SD3-medium, HunyuanDiT) the
steps and the dtype are the project's and the rest is the card's; the others follow their model cards.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from mlenergy.diffusion.models import families as f
from mlenergy.diffusion.models.spec import ModelSpec

_COUNTED = "defaults: project and model card; shape and parameters: configuration counted on the meta device"
_CARD = "defaults: model card, from memory; shape: configuration as quoted in public repositories"

_1024: dict[str, Any] = {"default_height_px": 1024, "default_width_px": 1024}
_768: dict[str, Any] = {"default_height_px": 768, "default_width_px": 768}
_512: dict[str, Any] = {"default_height_px": 512, "default_width_px": 512}
_256: dict[str, Any] = {"default_height_px": 256, "default_width_px": 256}
_FIXED_TEXT: dict[str, Any] = {"default_max_sequence_length": None, "max_sequence_length_limit": None}

_flux = partial(ModelSpec, family=f.FLUX, heads=24, layers=57, gated=True, source=_COUNTED)
_sd3 = partial(
    ModelSpec,
    family=f.SD3,
    guidance="classifier-free",
    default_max_sequence_length=256,
    max_sequence_length_limit=512,
    gated=True,
)
_pixart = partial(
    ModelSpec,
    guidance="classifier-free",
    default_steps=20,
    default_guidance_scale=4.5,
    default_dtype="float16",
    max_sequence_length_limit=512,
    heads=16,
    layers=28,
    source=_COUNTED,
)
_hunyuan = partial(
    ModelSpec,
    family=f.HUNYUANDIT,
    guidance="classifier-free",
    default_guidance_scale=5.0,
    default_dtype="float16",
    heads=16,
    layers=40,
)
_unet = partial(ModelSpec, guidance="classifier-free", default_dtype="float16", heads=None, patch_size=1)
_tiny = partial(
    ModelSpec, default_steps=4, default_dtype="float32", source="built in the process with random weights"
)

_FIRST: tuple[ModelSpec, ...] = (
    _flux(
        model_id="black-forest-labs/FLUX.1-dev",
        guidance="embedded",
        default_steps=28,
        default_guidance_scale=3.5,
        default_dtype="bfloat16",
        default_max_sequence_length=512,
        max_sequence_length_limit=512,
        parameters=16_870_599_139,
        **_1024,
    ),
    _flux(
        model_id="black-forest-labs/FLUX.1-schnell",
        guidance="none",
        default_steps=4,
        default_guidance_scale=None,
        default_dtype="bfloat16",
        default_max_sequence_length=256,
        max_sequence_length_limit=256,
        parameters=16_860_369_379,
        **_1024,
    ),
    _sd3(
        model_id="stabilityai/stable-diffusion-3-medium-diffusers",
        default_steps=20,
        default_guidance_scale=7.0,
        default_dtype="float16",
        heads=24,
        layers=24,
        parameters=7_692_768_483,
        source=_COUNTED,
        **_1024,
    ),
    _sd3(
        model_id="stabilityai/stable-diffusion-3.5-medium",
        default_steps=40,
        default_guidance_scale=4.5,
        default_dtype="bfloat16",
        heads=24,
        layers=24,
        dual_attention=True,
        parameters=7_907_612_003,
        source=_COUNTED,
        **_1024,
    ),
    _sd3(
        model_id="stabilityai/stable-diffusion-3.5-large",
        default_steps=28,
        default_guidance_scale=3.5,
        default_dtype="bfloat16",
        heads=38,
        layers=38,
        parameters=13_721_068_003,
        source=_COUNTED,
        **_1024,
    ),
    _sd3(
        model_id="stabilityai/stable-diffusion-3.5-large-turbo",
        default_steps=4,
        default_guidance_scale=0.0,
        default_dtype="bfloat16",
        heads=38,
        layers=38,
        source=_CARD,
        **_1024,
    ),
    _pixart(
        model_id="PixArt-alpha/PixArt-XL-2-1024-MS",
        family=f.PIXART_ALPHA,
        default_max_sequence_length=120,
        parameters=5_457_313_671,
        **_1024,
    ),
    _pixart(
        model_id="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        family=f.PIXART_SIGMA,
        default_max_sequence_length=300,
        parameters=5_456_820_615,
        **_1024,
    ),
    _hunyuan(
        model_id="Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers",
        default_steps=50,
        parameters=3_605_600_391,
        source=_COUNTED,
        **_FIXED_TEXT,
        **_1024,
    ),
    _hunyuan(
        model_id="Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers-Distilled",
        default_steps=25,
        source=_CARD,
        **_FIXED_TEXT,
        **_1024,
    ),
    _unet(
        model_id="stabilityai/stable-diffusion-xl-base-1.0",
        family=f.SDXL,
        default_steps=30,
        default_guidance_scale=5.0,
        parameters=3_468_837_867,
        source=_COUNTED,
        **_FIXED_TEXT,
        **_1024,
    ),
    _unet(
        model_id="stabilityai/sdxl-turbo",
        family=f.SDXL,
        default_steps=1,
        default_guidance_scale=0.0,
        source=_CARD,
        **_FIXED_TEXT,
        **_512,
    ),
    _unet(
        model_id="stable-diffusion-v1-5/stable-diffusion-v1-5",
        family=f.SD,
        default_steps=50,
        default_guidance_scale=7.5,
        source=_CARD,
        **_FIXED_TEXT,
        **_512,
    ),
    _unet(
        model_id="stabilityai/stable-diffusion-2-1",
        family=f.SD,
        default_steps=50,
        default_guidance_scale=7.5,
        source=_CARD,
        **_FIXED_TEXT,
        **_768,
    ),
)

_TINY_TEXT: dict[str, Any] = {"default_max_sequence_length": 64, "max_sequence_length_limit": 512}
_CFG: dict[str, Any] = {"guidance": "classifier-free", "default_guidance_scale": 5.0}

# The tiny pipelines that the package builds itself; heads are those of models/architectures/tiny.
_FIRST_TINY: tuple[ModelSpec, ...] = (
    _tiny(
        model_id="tiny/flux",
        family=f.FLUX,
        guidance="embedded",
        default_guidance_scale=3.5,
        heads=4,
        **_TINY_TEXT,
        **_256,
    ),
    _tiny(model_id="tiny/sd3", family=f.SD3, heads=4, **_CFG, **_TINY_TEXT, **_256),
    _tiny(model_id="tiny/sd3.5", family=f.SD3, heads=4, dual_attention=True, **_CFG, **_TINY_TEXT, **_256),
    _tiny(model_id="tiny/pixart-alpha", family=f.PIXART_ALPHA, heads=4, **_CFG, **_TINY_TEXT, **_256),
    _tiny(model_id="tiny/pixart-sigma", family=f.PIXART_SIGMA, heads=4, **_CFG, **_TINY_TEXT, **_256),
    _tiny(model_id="tiny/hunyuandit", family=f.HUNYUANDIT, heads=4, **_CFG, **_FIXED_TEXT, **_256),
    _tiny(model_id="tiny/sdxl", family=f.SDXL, heads=None, patch_size=1, **_CFG, **_FIXED_TEXT, **_256),
    _tiny(model_id="tiny/sd1.5", family=f.SD, heads=None, patch_size=1, **_CFG, **_FIXED_TEXT, **_256),
)

LISTED: tuple[ModelSpec, ...] = (*_FIRST, *(spec for group in f.GROUPS for spec in group.LISTED))
TINY: tuple[ModelSpec, ...] = (*_FIRST_TINY, *(spec for group in f.GROUPS for spec in group.TINY))

BY_ID: dict[str, ModelSpec] = {spec.model_id: spec for spec in LISTED + TINY}
