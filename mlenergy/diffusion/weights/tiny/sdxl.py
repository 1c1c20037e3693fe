"""tiny/sdxl: SDXL's classes, a three-level UNet, four heads."""

from __future__ import annotations

from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModelWithProjection

from mlenergy.diffusion.weights.tiny.texts import WIDTH, clip_encoder, clip_tokenizer
from mlenergy.diffusion.weights.tiny.vae import autoencoder
from mlenergy.diffusion.weights.tiny.weights import randomise

_SIZE_WIDTH = 8  # of the embedding of each of the six size conditions


def build() -> StableDiffusionXLPipeline:
    """The whole pipeline, random and seeded, without a watermark."""
    clip, clip_2 = clip_tokenizer(), clip_tokenizer(pad_token="!")
    return StableDiffusionXLPipeline(
        unet=_unet(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        vae=autoencoder(seed=51, latent_channels=4, scaling_factor=0.13025),
        text_encoder=clip_encoder(clip, seed=52),
        tokenizer=clip,
        text_encoder_2=clip_encoder(
            clip_2, seed=53, model_class=CLIPTextModelWithProjection, hidden_act="gelu"
        ),
        tokenizer_2=clip_2,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _unet() -> UNet2DConditionModel:
    model = UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=4,  # diffusers' name for the number of heads
        cross_attention_dim=2 * WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_SIZE_WIDTH,
        projection_class_embeddings_input_dim=WIDTH + 6 * _SIZE_WIDTH,
    )
    return randomise(model, seed=54)
