"""LTX-2: video and sound denoised together, by one denoiser with a stream for each."""

from __future__ import annotations

from functools import partial

from mlenergy.diffusion.models.groups.common import GUIDED, SEQUENCE, TINY_VIDEO
from mlenergy.diffusion.models.spec import Family, ModelSpec

LTX2 = Family(
    name="ltx-2",
    pipeline_class="LTX2Pipeline",
    output="video",
    denoiser="transformer",
    predicts="flow",
    text_encoders=("text_encoder", "connectors"),  # the latter prepare Gemma's states for both streams
    has_t5=False,
    size_step_px=32,
    takes_text_length=True,
    takes_frame_rate=True,
    gives_sigmas=True,
    decoders=("vae", "audio_vae", "vocoder"),
    makes_sound=True,
    shares_rows=False,
    exchanged_transformer="transformer_ltx2.xFuserLTX2VideoTransformer3DWrapper",
    # The defaults of diffusers 0.42.1's call are LTX-2.3's, with two more calls of the denoiser a step.
    arguments={
        "audio_guidance_scale": None,  # the video's
        "stg_scale": 0.0,
        "audio_stg_scale": 0.0,
        "spatio_temporal_guidance_blocks": None,
        "modality_scale": 1.0,
        "audio_modality_scale": 1.0,
        "guidance_rescale": 0.0,
        "audio_guidance_rescale": 0.0,
        "use_cross_timestep": False,
    },
    configured={"use_prompt_embeddings": True},  # LTX-2.3 and later have none, and want other arguments
    takes_attention_kernel=False,
    counts_as_run=True,
    has_cost_model=False,
    modes={"xdit": SEQUENCE | GUIDED, "diffusers": GUIDED},
    caches={},
    reasons={
        "ulysses": "diffusers' plan of its transformer splits the text's mask and fails on its time steps",
        "ring": "diffusers' plan of its transformer splits the text's mask and fails on its time steps",
        "tensor": "diffusers has no plan of its weights",
        "pipefusion": "xfuser has no pipeline of it",
        "parallel-vae": "DistVAE knows no decoder of AutoencoderKLLTX2Video",
    },
)

_ltx2 = partial(
    ModelSpec,
    family=LTX2,
    guidance="classifier-free",
    default_guidance_scale=4.0,
    max_sequence_length_limit=1024,
    latent_factor=32,
    patch_size=1,
    frame_factor=8,
)

FAMILIES = (LTX2,)
LISTED: tuple[ModelSpec, ...] = (
    _ltx2(
        model_id="Lightricks/LTX-2",
        default_steps=40,
        default_dtype="bfloat16",
        default_max_sequence_length=1024,
        text_step=128,  # the connectors' learned registers fill the padding, whole rounds of them
        default_height_px=512,
        default_width_px=768,
        default_num_frames=121,
        default_fps=24,
        heads=32,
        layers=48,
        parameters=33_826_295_381,
        source="defaults: diffusers' documentation of LTX-2; shape: its script that converts the weights",
    ),
)
TINY: tuple[ModelSpec, ...] = (
    _ltx2(
        model_id="tiny/ltx2",
        default_max_sequence_length=64,
        text_step=16,
        heads=4,
        layers=2,
        **TINY_VIDEO,
    ),
)
