"""FLUX.2: dev, whose guidance is an input, and klein, distilled or with a second call a step."""

from __future__ import annotations

from functools import partial
from typing import Any

from mlenergy.diffusion.models.groups.common import ONE_TEXT, SEQUENCE, SIZE_256, SIZE_1024
from mlenergy.diffusion.models.spec import Family, ModelSpec

_flux2 = partial(
    Family,
    denoiser="transformer",
    predicts="flow",
    text_encoders=ONE_TEXT,
    has_t5=False,
    text_tokens_in_sequence=True,
    packed_cells=2,
    size_step_px=1,
    takes_text_length=True,
    takes_negative_prompt=False,
    fuses_qkv=True,
    caches={},
)
DEV = _flux2(
    name="flux2",
    pipeline_class="Flux2Pipeline",
    patches_beside_sequence=False,
    modes={"xdit": SEQUENCE | {"data", "pipefusion"}, "diffusers": SEQUENCE | {"data", "tensor"}},
    reasons={
        "cfg": "its guidance scale is an input of the denoiser, so that no step has two halves",
        "parallel-vae": "it hangs in xfuser's pipeline, whose last ranks alone decode",
    },
)
# xfuser's own pipeline for klein leaves guidance out and says nothing: its transformer serves diffusers'.
KLEIN = _flux2(
    name="flux2-klein",
    pipeline_class="Flux2KleinPipeline",
    separate_guidance=True,
    exchanged_transformer="transformer_flux2.xFuserFlux2Transformer2DWrapper",
    modes={"xdit": SEQUENCE | {"cfg", "data"}, "diffusers": SEQUENCE | {"cfg", "data", "tensor"}},
    reasons={"pipefusion": "xfuser's PipeFusion for klein runs no guidance, whatever the scale"},
)
FAMILIES = (DEV, KLEIN)

_TEXT: dict[str, Any] = {"default_max_sequence_length": 512, "max_sequence_length_limit": 512}
_card = partial(
    ModelSpec,
    default_dtype="bfloat16",
    source="defaults: model card; shape: configuration counted on the meta device",
    **_TEXT,
    **SIZE_1024,
)
_klein = partial(_card, family=KLEIN)
_4b: dict[str, Any] = {"heads": 24, "layers": 25, "parameters": 7_982_058_787}
_9b: dict[str, Any] = {"heads": 32, "layers": 32, "parameters": 17_353_362_723, "gated": True}
_distilled: dict[str, Any] = {"guidance": "none", "default_steps": 4, "default_guidance_scale": None}
_base: dict[str, Any] = {"guidance": "classifier-free", "default_steps": 50, "default_guidance_scale": 4.0}

LISTED: tuple[ModelSpec, ...] = (
    _card(
        model_id="black-forest-labs/FLUX.2-dev",
        family=DEV,
        guidance="embedded",
        default_steps=50,
        default_guidance_scale=4.0,
        heads=48,
        layers=56,
        gated=True,
        parameters=56_318_688_547,
    ),
    _klein(model_id="black-forest-labs/FLUX.2-klein-4B", **_distilled, **_4b),
    _klein(model_id="black-forest-labs/FLUX.2-klein-9B", **_distilled, **_9b),
    _klein(model_id="black-forest-labs/FLUX.2-klein-base-4B", **_base, **_4b),
    _klein(model_id="black-forest-labs/FLUX.2-klein-base-9B", **_base, **_9b),
)

_tiny = partial(
    ModelSpec,
    default_steps=4,
    default_dtype="float32",
    source="built in the process with random weights",
    heads=4,
    layers=5,
    default_max_sequence_length=64,
    max_sequence_length_limit=512,
    **SIZE_256,
)
TINY: tuple[ModelSpec, ...] = (
    _tiny(model_id="tiny/flux2", family=DEV, guidance="embedded", default_guidance_scale=4.0),
    _tiny(model_id="tiny/flux2-klein", family=KLEIN, guidance="classifier-free", default_guidance_scale=4.0),
)
