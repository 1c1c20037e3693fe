"""tiny/flux: FLUX.1-dev's classes and options, four blocks of each kind, four heads."""

from __future__ import annotations

from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from mlenergy.diffusion.weights.tiny.texts import (
    WIDTH,
    clip_encoder,
    clip_tokenizer,
    t5_encoder,
    t5_tokenizer,
)
from mlenergy.diffusion.weights.tiny.vae import autoencoder
from mlenergy.diffusion.weights.tiny.weights import randomise


def build() -> FluxPipeline:
    """The whole pipeline, random and seeded, float32 on the CPU."""
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=1000,
            shift=3.0,
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=1.15,
            base_image_seq_len=256,
            max_image_seq_len=4096,
        ),
        vae=autoencoder(
            seed=11,
            latent_channels=16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=clip_encoder(clip, seed=12),
        tokenizer=clip,
        text_encoder_2=t5_encoder(t5, seed=13),
        tokenizer_2=t5,
        transformer=_transformer(),
    )


def _transformer() -> FluxTransformer2DModel:
    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,  # 16 latent channels × 2×2 cells, packed by the pipeline
        num_layers=4,
        num_single_layers=4,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),  # sum: the head's width
    )
    return randomise(model, seed=14)
