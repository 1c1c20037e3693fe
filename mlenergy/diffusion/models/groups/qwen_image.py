"""Qwen-Image: guidance is a second call of the denoiser; texts are as long as the prompts."""

from __future__ import annotations

from functools import partial

from mlenergy.diffusion.models.groups.common import GUIDED, ONE_TEXT, SEQUENCE, SIZE_256
from mlenergy.diffusion.models.spec import Family, ModelSpec

QWEN_IMAGE = Family(
    name="qwen-image",
    pipeline_class="QwenImagePipeline",
    decodes_over_time=True,
    denoiser="transformer",
    predicts="flow",
    text_encoders=ONE_TEXT,
    has_t5=False,
    text_tokens_in_sequence=True,
    packed_cells=2,
    size_step_px=1,
    takes_text_length=True,
    pads_text=False,
    template_tokens=(34, 34),  # its encoder reads them, and the denoiser does not
    guidance_argument="true_cfg_scale",
    default_negative=" ",
    separate_guidance=True,
    gives_sigmas=True,
    exchanged_transformer="transformer_qwen.xFuserQwenImageTransformerWrapper",
    # xfuser's attention takes no mask; diffusers' ring has no kernel that does.
    unmasked_modes={"xdit": SEQUENCE, "diffusers": frozenset({"ring"})},
    modes={"xdit": SEQUENCE | GUIDED, "diffusers": SEQUENCE | GUIDED | {"tensor"}},
    caches={},
    reasons={"pipefusion": "xfuser has no pipeline of it", "parallel-vae": "xfuser has no pipeline of it"},
)
FAMILIES = (QWEN_IMAGE,)

_qwen = partial(
    ModelSpec,
    family=QWEN_IMAGE,
    guidance="classifier-free",
    default_guidance_scale=4.0,
    max_sequence_length_limit=1024,
    layers=60,
    heads=24,
)
_card = partial(
    _qwen,
    default_steps=50,
    default_dtype="bfloat16",
    default_height_px=1328,
    default_width_px=1328,
    default_max_sequence_length=512,
    parameters=28_849_460_275,
    source="defaults: model card; shape: configuration counted on the meta device",
)
LISTED: tuple[ModelSpec, ...] = (
    _card(model_id="Qwen/Qwen-Image"),
    _card(model_id="Qwen/Qwen-Image-2512"),
)
TINY: tuple[ModelSpec, ...] = (
    ModelSpec(
        model_id="tiny/qwen-image",
        family=QWEN_IMAGE,
        guidance="classifier-free",
        default_steps=4,
        default_guidance_scale=4.0,
        default_dtype="float32",
        default_max_sequence_length=512,
        max_sequence_length_limit=1024,
        heads=4,
        layers=3,
        source="built in the process with random weights",
        **SIZE_256,
    ),
)
