"""tiny/sd3 and tiny/sd3.5: Stable Diffusion 3's classes, four joint blocks, four heads."""

from __future__ import annotations

from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection

from mlenergy.diffusion.weights.tiny.texts import (
    WIDTH,
    clip_encoder,
    clip_tokenizer,
    t5_encoder,
    t5_tokenizer,
)
from mlenergy.diffusion.weights.tiny.vae import autoencoder
from mlenergy.diffusion.weights.tiny.weights import randomise

_TWO_CLIPS = 2 * WIDTH  # their hidden states stand side by side, padded to the T5's width


def build() -> StableDiffusion3Pipeline:
    """SD3-medium's options: no norm of query and key, one attention a block."""
    return _pipeline(qk_norm=None, dual_attention_layers=())


def build_dual() -> StableDiffusion3Pipeline:
    """SD3.5-medium's options: query and key are normed, the first blocks attend twice."""
    return _pipeline(qk_norm="rms_norm", dual_attention_layers=(0, 1))


def _pipeline(**options: object) -> StableDiffusion3Pipeline:
    clip, clip_2, t5 = clip_tokenizer(), clip_tokenizer(pad_token="!"), t5_tokenizer()
    return StableDiffusion3Pipeline(
        transformer=_transformer(**options),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
        vae=autoencoder(
            seed=21,
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=clip_encoder(clip, seed=22, model_class=CLIPTextModelWithProjection),
        tokenizer=clip,
        text_encoder_2=clip_encoder(
            clip_2, seed=23, model_class=CLIPTextModelWithProjection, hidden_act="gelu"
        ),
        tokenizer_2=clip_2,
        text_encoder_3=t5_encoder(t5, seed=24, d_model=_TWO_CLIPS),
        tokenizer_3=t5,
    )


def _transformer(**options: object) -> SD3Transformer2DModel:
    model = SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=4,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=_TWO_CLIPS,
        caption_projection_dim=64,  # heads × head width
        pooled_projection_dim=_TWO_CLIPS,
        pos_embed_max_size=64,  # up to 1024 pixels a side
        **options,
    )
    return randomise(model, seed=25)
