"""The families: one entry a pipeline class of diffusers, with what its models have in common.

`modes` names the parallel modes that each engine offers. A mode is listed only when its image
equals the one-rank image in the parity tests; the capability table is made from those tests.
"""

from __future__ import annotations

from functools import partial

from mlenergy.diffusion.models.modes import DIFFUSERS_MODES, XDIT_MODES
from mlenergy.diffusion.models.spec import EngineName, Family, Mode

_ONE_TEXT = ("text_encoder",)
_TWO_TEXTS = ("text_encoder", "text_encoder_2")
_THREE_TEXTS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def _modes(family: str) -> dict[EngineName, frozenset[Mode]]:
    modes: dict[EngineName, frozenset[Mode]] = {"diffusers": DIFFUSERS_MODES[family]}
    return {"xdit": XDIT_MODES[family], **modes} if family in XDIT_MODES else modes


# Latents are an eighth of the image on each side; transformers take them in patches of two by two cells.
_transformer = partial(Family, denoiser="transformer", size_multiple_px=16, latent_factor=8, patch_size=2)
_unet = partial(
    Family,
    denoiser="unet",
    size_multiple_px=8,
    latent_factor=8,
    patch_size=1,
    text_tokens_in_sequence=False,
)

FLUX = _transformer(
    name="flux",
    pipeline_class="FluxPipeline",
    text_encoders=_TWO_TEXTS,
    text_tokens_in_sequence=True,
    modes=_modes("flux"),
)
SD3 = _transformer(
    name="sd3",
    pipeline_class="StableDiffusion3Pipeline",
    text_encoders=_THREE_TEXTS,
    text_tokens_in_sequence=True,
    modes=_modes("sd3"),
)
PIXART_ALPHA = _transformer(
    name="pixart-alpha",
    pipeline_class="PixArtAlphaPipeline",
    text_encoders=_ONE_TEXT,
    text_tokens_in_sequence=False,
    modes=_modes("pixart-alpha"),
)
PIXART_SIGMA = _transformer(
    name="pixart-sigma",
    pipeline_class="PixArtSigmaPipeline",
    text_encoders=_ONE_TEXT,
    text_tokens_in_sequence=False,
    modes=_modes("pixart-sigma"),
)
HUNYUANDIT = _transformer(
    name="hunyuandit",
    pipeline_class="HunyuanDiTPipeline",
    text_encoders=_TWO_TEXTS,
    text_tokens_in_sequence=False,
    modes=_modes("hunyuandit"),
)
SDXL = _unet(
    name="sdxl",
    pipeline_class="StableDiffusionXLPipeline",
    text_encoders=_TWO_TEXTS,
    modes=_modes("sdxl"),
)
SD = _unet(
    name="sd",
    pipeline_class="StableDiffusionPipeline",
    text_encoders=_ONE_TEXT,
    modes=_modes("sd"),
)

FAMILIES: dict[str, Family] = {
    family.pipeline_class: family for family in (FLUX, SD3, PIXART_ALPHA, PIXART_SIGMA, HUNYUANDIT, SDXL, SD)
}
