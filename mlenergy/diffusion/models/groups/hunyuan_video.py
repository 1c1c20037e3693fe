"""HunyuanVideo: the guidance scale is an input; a text joins the video's tokens, without its padding."""

from __future__ import annotations

from functools import partial

from mlenergy.diffusion.models.groups.common import SEQUENCE, TINY_VIDEO, TRANSFORMER_CACHES
from mlenergy.diffusion.models.spec import Family, ModelSpec

HUNYUAN_VIDEO = Family(
    name="hunyuan-video",
    pipeline_class="HunyuanVideoPipeline",
    denoiser="transformer",
    predicts="flow",
    text_encoders=("text_encoder", "text_encoder_2"),
    has_t5=False,
    text_tokens_in_sequence=True,
    cuts_text=True,
    size_step_px=16,
    takes_text_length=True,
    takes_negative_prompt=False,
    template_tokens=(95, 95),  # Llama reads them, and the denoiser does not
    shares_rows=False,
    exchanged_transformer="transformer_hunyuan_video.xFuserHunyuanVideoTransformer3DWrapper",
    unmasked_modes={
        "xdit": SEQUENCE
    },  # padding that one row of a batch has is cut off only where all have it
    takes_attention_kernel=False,  # diffusers' own masks the text, for which no kernel but torch's is offered
    output="video",
    modes={"xdit": SEQUENCE | {"data", "parallel-vae"}, "diffusers": frozenset({"data"})},
    caches={"diffusers": TRANSFORMER_CACHES},
    reasons={
        "tensor": "diffusers has no plan of its transformer",
        "cfg": "its guidance scale is an input of the denoiser, so that no step has two halves",
        "pipefusion": "xfuser has no pipeline of it",
    },
)

_hunyuan = partial(
    ModelSpec,
    family=HUNYUAN_VIDEO,
    guidance="embedded",
    default_guidance_scale=6.0,
    default_max_sequence_length=256,
    max_sequence_length_limit=256,
    default_fps=15,
    frame_factor=4,
)

FAMILIES = (HUNYUAN_VIDEO,)
LISTED: tuple[ModelSpec, ...] = (
    _hunyuan(
        model_id="hunyuanvideo-community/HunyuanVideo",
        default_steps=50,
        default_dtype="bfloat16",
        default_height_px=720,
        default_width_px=1280,
        default_num_frames=129,
        heads=24,
        layers=60,
        parameters=20_695_738_643,
        source="defaults: diffusers' pipeline and model card; shape and parameters: configuration counted on "
        "the meta device",
    ),
)
TINY: tuple[ModelSpec, ...] = (
    _hunyuan(
        model_id="tiny/hunyuanvideo",
        heads=4,
        layers=4,
        **{**TINY_VIDEO, "default_fps": 15},
    ),
)
