"""HunyuanVideo 1.5: guidance in a second call, by a guider; texts of two encoders join the video's tokens."""

from __future__ import annotations

from functools import partial

from mlenergy.diffusion.models.groups.common import GUIDED, SEQUENCE, TINY_VIDEO
from mlenergy.diffusion.models.spec import Family, ModelSpec

HUNYUAN_VIDEO_15 = Family(
    name="hunyuan-video-1.5",
    pipeline_class="HunyuanVideo15Pipeline",
    output="video",
    denoiser="transformer",
    predicts="flow",
    text_encoders=("text_encoder", "text_encoder_2"),
    has_t5=True,  # ByT5, which reads quoted words alone
    text_tokens_in_sequence=True,
    cuts_text=True,
    size_step_px=16,
    gives_sigmas=True,
    separate_guidance=True,
    guiders=("guider",),
    conditioned_latents=True,
    shares_rows=False,
    exchanged_transformer="transformer_hunyuan_video15.xFuserHunyuanVideo15Transformer3DWrapper",
    unmasked_modes={
        "xdit": SEQUENCE
    },  # padding that one row of a batch has is cut off only where all have it
    decodes_one=True,
    takes_attention_kernel=False,  # its text's mask takes none but torch's
    counts_as_run=True,
    has_cost_model=False,
    modes={"xdit": SEQUENCE | GUIDED, "diffusers": GUIDED},
    caches={},
    reasons={
        "ulysses": "diffusers has no plan of its transformer",
        "ring": "diffusers has no plan of its transformer",
        "tensor": "diffusers has no plan of its transformer",
        "pipefusion": "xfuser has no pipeline of it",
        "parallel-vae": "DistVAE knows no decoder of AutoencoderKLHunyuanVideo15",
    },
)

_hunyuan = partial(
    ModelSpec,
    family=HUNYUAN_VIDEO_15,
    guidance="classifier-free",
    default_guidance_scale=6.0,
    default_max_sequence_length=None,
    max_sequence_length_limit=None,
    default_fps=24,
    latent_factor=16,
    patch_size=1,
    frame_factor=4,
)
_card = partial(
    _hunyuan,
    default_steps=50,
    default_dtype="bfloat16",
    default_num_frames=121,
    heads=16,
    layers=54,
    parameters=16_877_176_355,
    source="defaults: diffusers' HunyuanVideo15Pipeline and its script that converts the weights; shape and "
    "parameters: the same script's configuration, counted on the meta device",
)

FAMILIES = (HUNYUAN_VIDEO_15,)
LISTED: tuple[ModelSpec, ...] = (
    _card(
        model_id="hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v",
        default_height_px=480,
        default_width_px=848,
    ),
    _card(
        model_id="hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v",
        default_height_px=720,
        default_width_px=1280,
    ),
)
TINY: tuple[ModelSpec, ...] = (
    _hunyuan(
        model_id="tiny/hunyuanvideo1.5",
        heads=2,
        layers=2,
        **TINY_VIDEO,
    ),
)
