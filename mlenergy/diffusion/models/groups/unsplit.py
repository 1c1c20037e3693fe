"""HiDream, Chroma, AuraFlow, Kolors, CogView4, HunyuanImage: whole images on each process, by diffusers.

xfuser has none of them and diffusers no plan to split one, so that processes share a batch and no image. No
costs are predicted for them: their FLOPs are counted as they run.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from mlenergy.diffusion.models.groups.common import ONE_TEXT, SIZE_256, SIZE_1024
from mlenergy.diffusion.models.spec import Family, ModelSpec

_NO_PLAN = "xfuser has no pipeline of it, and diffusers no plan to split its denoiser"

_unsplit = partial(
    Family,
    denoiser="transformer",
    predicts="flow",
    text_encoders=ONE_TEXT,
    size_step_px=1,
    text_tokens_in_sequence=True,
    takes_text_length=True,
    counts_as_run=True,
    has_cost_model=False,
    takes_attention_kernel=False,  # their processors call torch's attention themselves
    modes={"diffusers": frozenset({"data"})},
    caches={},
    reasons=dict.fromkeys(("ulysses", "ring", "cfg", "pipefusion", "tensor", "parallel-vae"), _NO_PLAN),
)

_LLAMA = "meta-llama/Meta-Llama-3.1-8B-Instruct"
HIDREAM = _unsplit(
    name="hidream",
    pipeline_class="HiDreamImagePipeline",
    text_encoders=("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4"),
    has_t5=True,
    # The published folders lack the Llama that reads the prompt beside CLIP and T5.
    parts_from={
        "text_encoder_4": (_LLAMA, "transformers.LlamaForCausalLM"),
        "tokenizer_4": (_LLAMA, "transformers.PreTrainedTokenizerFast"),
    },
    square_cells=128,
)
CHROMA = _unsplit(
    name="chroma",
    pipeline_class="ChromaPipeline",
    has_t5=True,
    packed_cells=2,
    gives_sigmas=True,
    separate_guidance=True,
    fuses_qkv=True,
)
AURAFLOW = _unsplit(name="auraflow", pipeline_class="AuraFlowPipeline", has_t5=True, fuses_qkv=True)
KOLORS = _unsplit(
    name="kolors",
    pipeline_class="KolorsPipeline",
    denoiser="unet",
    predicts="noise",
    has_t5=False,
    text_tokens_in_sequence=False,
    size_step_px=8,
    upcasts_vae=True,
    takes_attention_kernel=True,
    fuses_qkv=True,
)
COGVIEW4 = _unsplit(
    name="cogview4",
    pipeline_class="CogView4Pipeline",
    has_t5=False,
    size_step_px=16,
    gives_sigmas=True,
    separate_guidance=True,
    pads_text=False,
)
HUNYUANIMAGE = _unsplit(
    name="hunyuanimage",
    pipeline_class="HunyuanImagePipeline",
    text_encoders=("text_encoder", "text_encoder_2"),
    has_t5=True,  # ByT5, which reads quoted words alone
    packed_cells=1,
    size_step_px=64,
    takes_text_length=False,
    gives_sigmas=True,
    separate_guidance=True,
    guiders=("guider", "ocr_guider"),
    guidance_argument="distilled_guidance_scale",
)

FAMILIES = (HIDREAM, CHROMA, AURAFLOW, KOLORS, COGVIEW4, HUNYUANIMAGE)

_CARD = "defaults: model card and diffusers' documentation of the pipeline"
_guided = partial(ModelSpec, guidance="classifier-free", source=_CARD)
_bfloat16: dict[str, Any] = {"default_dtype": "bfloat16"}
_float16: dict[str, Any] = {"default_dtype": "float16"}


def _text(length: int | None, limit: int | None = None) -> dict[str, Any]:
    return {"default_max_sequence_length": length, "max_sequence_length_limit": limit or length}


_hidream = partial(_guided, family=HIDREAM, heads=20, layers=48, **_text(128), **_bfloat16, **SIZE_1024)
_chroma = partial(_guided, family=CHROMA, heads=24, layers=57, **_text(512), **_bfloat16, **SIZE_1024)
_auraflow = partial(
    _guided,
    family=AURAFLOW,
    default_steps=50,
    default_guidance_scale=3.5,
    heads=12,
    layers=36,
    **_text(256),
    **_float16,
    **SIZE_1024,
)
_hunyuan = partial(
    ModelSpec,
    family=HUNYUANIMAGE,
    heads=28,
    layers=60,
    latent_factor=32,
    patch_size=1,
    default_height_px=2048,
    default_width_px=2048,
    source=_CARD,
    **_text(None),
    **_bfloat16,
)
LISTED: tuple[ModelSpec, ...] = (
    _hidream(model_id="HiDream-ai/HiDream-I1-Full", default_steps=50, default_guidance_scale=5.0),
    # Distilled with their guidance: their authors' script asks for a scale of 0.
    _hidream(model_id="HiDream-ai/HiDream-I1-Dev", default_steps=28, default_guidance_scale=0.0),
    _hidream(model_id="HiDream-ai/HiDream-I1-Fast", default_steps=16, default_guidance_scale=0.0),
    _chroma(model_id="lodestones/Chroma1-HD", default_steps=40, default_guidance_scale=3.0),
    _auraflow(model_id="fal/AuraFlow"),
    _auraflow(model_id="fal/AuraFlow-v0.2"),
    _auraflow(model_id="fal/AuraFlow-v0.3"),
    _guided(
        model_id="Kwai-Kolors/Kolors-diffusers",
        family=KOLORS,
        default_steps=50,
        default_guidance_scale=5.0,
        heads=None,
        patch_size=1,
        **_text(256),
        **_float16,
        **SIZE_1024,
    ),
    _guided(
        model_id="zai-org/CogView4-6B",
        family=COGVIEW4,
        default_steps=50,
        default_guidance_scale=3.5,
        heads=None,
        **_text(1024),
        **_bfloat16,
        **SIZE_1024,
    ),
    _hunyuan(
        model_id="hunyuanvideo-community/HunyuanImage-2.1-Diffusers",
        guidance="classifier-free",
        default_steps=50,
        default_guidance_scale=3.5,
    ),
    _hunyuan(
        model_id="hunyuanvideo-community/HunyuanImage-2.1-Distilled-Diffusers",
        guidance="embedded",
        default_steps=8,
        default_guidance_scale=3.25,
    ),
)

_tiny = partial(
    ModelSpec,
    guidance="classifier-free",
    default_steps=4,
    default_dtype="float32",
    heads=4,
    source="built in the process with random weights",
    **SIZE_256,
)
TINY: tuple[ModelSpec, ...] = (
    _tiny(
        model_id="tiny/hidream",
        family=HIDREAM,
        default_guidance_scale=5.0,
        latent_factor=2,
        **{**_text(64, 128), "heads": 2},
    ),
    _tiny(model_id="tiny/chroma", family=CHROMA, default_guidance_scale=3.0, **_text(64, 512)),
    _tiny(model_id="tiny/auraflow", family=AURAFLOW, default_guidance_scale=3.5, **_text(64, 256)),
    _tiny(
        model_id="tiny/kolors",
        family=KOLORS,
        default_guidance_scale=5.0,
        patch_size=1,
        **{**_text(64, 256), "heads": None},
    ),
    _tiny(model_id="tiny/cogview4", family=COGVIEW4, default_guidance_scale=3.5, **_text(64, 1024)),
    _tiny(
        model_id="tiny/hunyuanimage",
        family=HUNYUANIMAGE,
        default_guidance_scale=3.5,
        latent_factor=32,
        patch_size=1,
        **_text(None),
    ),
)
