"""tiny/sd1.5: Stable Diffusion 1's classes, a four-level UNet, four heads."""

from __future__ import annotations

from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from mlenergy.diffusion.weights.tiny.texts import WIDTH, clip_encoder, clip_tokenizer
from mlenergy.diffusion.weights.tiny.vae import autoencoder
from mlenergy.diffusion.weights.tiny.weights import randomise


def build() -> StableDiffusionPipeline:
    """The whole pipeline, without a safety checker, with the hub's default scheduler."""
    clip = clip_tokenizer()
    return StableDiffusionPipeline(
        unet=_unet(),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        vae=autoencoder(seed=61, latent_channels=4, scaling_factor=0.18215),
        text_encoder=clip_encoder(clip, seed=62),
        tokenizer=clip,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _unet() -> UNet2DConditionModel:
    model = UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,  # diffusers' name for the number of heads
        cross_attention_dim=WIDTH,
    )
    return randomise(model, seed=63)
