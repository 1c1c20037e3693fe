"""The families: one entry a pipeline class, with all that its models have in common.

A parallel mode is listed only where its images equal those of one rank in the parity tests, PipeFusion
being approximate (Plan.approximation); docs/capabilities.md is made from those tests. An engine that is
missing from `modes` has no such pipeline.
"""

from __future__ import annotations

from functools import partial
from types import ModuleType

from mlenergy.diffusion.models.groups import (
    cogvideox,
    flux2,
    hunyuan_video,
    hunyuan_video15,
    infinity,
    latte,
    ltx,
    ltx2,
    lumina2,
    qwen_image,
    sana,
    unsplit,
    var,
    wan,
    z_image,
)
from mlenergy.diffusion.models.groups.common import (
    GUIDED,
    ONE_TEXT,
    SEQUENCE,
    TRANSFORMER_CACHES,
    UNET_CACHES,
    XDIT_ONLY,
)
from mlenergy.diffusion.models.spec import Family

_TWO_TEXTS = ("text_encoder", "text_encoder_2")
_THREE_TEXTS = ("text_encoder", "text_encoder_2", "text_encoder_3")

_transformer = partial(Family, denoiser="transformer", has_t5=True, fuses_qkv=True)
_unet = partial(
    Family,
    denoiser="unet",
    predicts="noise",
    caches={"diffusers": UNET_CACHES},
    has_t5=False,
    fuses_qkv=True,
)

FLUX = _transformer(
    name="flux",
    pipeline_class="FluxPipeline",
    predicts="flow",
    text_encoders=_TWO_TEXTS,
    text_tokens_in_sequence=True,
    packed_cells=2,
    size_step_px=1,
    takes_text_length=True,
    # No guidance batch to split ("cfg"); it alone brings a plan for its weights ("tensor").
    modes={
        "xdit": SEQUENCE | XDIT_ONLY | {"data", "tensor"},
        "diffusers": SEQUENCE | {"data", "tensor"},
    },
    # xfuser's caches; it has coefficients of TeaCache for FLUX only, and diffusers has no hook for it.
    caches={
        "xdit": frozenset({"fbcache", "teacache"}),
        "diffusers": TRANSFORMER_CACHES | {"magcache"},
    },
)
SD3 = _transformer(
    name="sd3",
    pipeline_class="StableDiffusion3Pipeline",
    predicts="flow",
    text_encoders=_THREE_TEXTS,
    text_tokens_in_sequence=True,
    clip_in_sequence=True,
    size_step_px=1,
    takes_text_length=True,
    modes={"xdit": SEQUENCE | GUIDED | XDIT_ONLY, "diffusers": SEQUENCE | GUIDED},
    caches={"diffusers": TRANSFORMER_CACHES},
)
_pixart = partial(
    _transformer,
    predicts="noise",
    text_encoders=ONE_TEXT,
    takes_text_length=True,
    bins_resolution=True,
    cleans_captions=True,
    trains_lora=True,
    modes={"xdit": SEQUENCE | GUIDED | XDIT_ONLY, "diffusers": SEQUENCE | GUIDED},
)
PIXART_ALPHA = _pixart(
    name="pixart-alpha",
    pipeline_class="PixArtAlphaPipeline",
    # Its sizes come in a dictionary, whose two halves FasterCache does not part.
    caches={"diffusers": TRANSFORMER_CACHES - {"fastercache"}},
)
PIXART_SIGMA = _pixart(
    name="pixart-sigma",
    pipeline_class="PixArtSigmaPipeline",
    caches={"diffusers": TRANSFORMER_CACHES},
)
HUNYUANDIT = _transformer(
    name="hunyuandit",
    pipeline_class="HunyuanDiTPipeline",
    predicts="noise",
    text_encoders=_TWO_TEXTS,
    bins_resolution=True,
    only_latent_factor=8,  # its positions are laid out for it, whatever its VAE
    paired_stages=True,
    modes={"xdit": SEQUENCE | GUIDED | XDIT_ONLY, "diffusers": SEQUENCE | GUIDED},
    caches={"diffusers": TRANSFORMER_CACHES},
)
# The UNets have no one sequence to split.
SDXL = _unet(
    name="sdxl",
    pipeline_class="StableDiffusionXLPipeline",
    text_encoders=_TWO_TEXTS,
    upcasts_vae=True,
    modes={"xdit": frozenset({"cfg", "parallel-vae"}), "diffusers": GUIDED},
)
SD = _unet(
    name="sd",
    pipeline_class="StableDiffusionPipeline",
    text_encoders=ONE_TEXT,
    modes={"diffusers": GUIDED},
)

_FIRST = (FLUX, SD3, PIXART_ALPHA, PIXART_SIGMA, HUNYUANDIT, SDXL, SD)

# Modules of models/groups/; each has FAMILIES, LISTED and TINY.
GROUPS: tuple[ModuleType, ...] = (
    *(flux2, qwen_image, z_image, sana, var, infinity, lumina2),
    *(wan, ltx, unsplit, cogvideox, hunyuan_video),
    *(hunyuan_video15, ltx2, latte),
)
_ALL: tuple[Family, ...] = (*_FIRST, *(family for group in GROUPS for family in group.FAMILIES))

FAMILIES: dict[str, Family] = {family.pipeline_class: family for family in _ALL}
