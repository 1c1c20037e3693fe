"""VAR, class-conditional images by next-scale prediction: its family, and the published models.

The hub has all of them in one repository, FoundationVision/var, as files: so they are listed by short names.
The engine is this package's own.
"""

from __future__ import annotations

from typing import get_args

from mlenergy.diffusion.models.spec import Dtype, Family, Mode, ModelSpec
from mlenergy.diffusion.models.var import HUB_ID, TINY_CONFIG, VarConfig, files_of, next_scale, published

_WHOLE_IMAGES = "each process makes whole images, its share of the batch by --data_parallel_degree"

VAR = Family(
    name="var",
    pipeline_class="VAR",
    denoiser="transformer",
    predicts="scales",
    text_encoders=(),
    modes={"autoregressive": frozenset({"data"})},
    caches={},
    has_t5=False,
    condition="class",
    reasons={mode: _WHOLE_IMAGES for mode in get_args(Mode) if mode != "data"},
    unguided_scale=0.0,  # guidance grows from none at the first scale to 1 + scale at the last
)

_COUNTED = (
    "defaults: the authors' demonstration; parameters: counted on the meta device, without the VAE's encoder"
)


def _spec(
    model_id: str,
    config: VarConfig,
    hub_id: str | None,
    files: dict[str, str],
    source: str,
    dtype: Dtype,
    parameters: int | None,
) -> ModelSpec:
    return ModelSpec(
        model_id=model_id,
        family=VAR,
        guidance="classifier-free",
        default_steps=len(config.sides),
        default_guidance_scale=4.0,
        default_dtype=dtype,
        default_height_px=config.side_px,
        default_width_px=config.side_px,
        default_max_sequence_length=None,
        max_sequence_length_limit=None,
        heads=config.heads,
        layers=config.depth,
        latent_factor=config.vae.stride,
        patch_size=1,
        parameters=parameters,
        next_scale=next_scale(config, hub_id, files),
        source=source,
    )


def _published(depth: int, parameters: int) -> ModelSpec:
    config, files = published(depth), files_of(depth)
    return _spec(f"var-d{depth}", config, HUB_ID, files, _COUNTED, "float16", parameters)


FAMILIES: tuple[Family, ...] = (VAR,)
LISTED: tuple[ModelSpec, ...] = (
    _published(16, 375_114_755),
    _published(20, 665_748_371),
    _published(24, 1_098_230_595),
    _published(30, 2_074_851_591),
    _published(36, 2_418_725_139),
)
TINY: tuple[ModelSpec, ...] = (
    _spec("tiny/var", TINY_CONFIG, None, {}, "built in the process with random weights", "float32", None),
)
