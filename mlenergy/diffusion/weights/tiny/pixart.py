"""tiny/pixart-alpha and tiny/pixart-sigma: PixArt's classes, four blocks, four heads."""

from __future__ import annotations

from diffusers import (
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)

from mlenergy.diffusion.weights.tiny.texts import WIDTH, t5_encoder, t5_tokenizer
from mlenergy.diffusion.weights.tiny.vae import autoencoder
from mlenergy.diffusion.weights.tiny.weights import randomise


def build_alpha() -> PixArtAlphaPipeline:
    """PixArt-alpha at 1024: the image's size and shape are conditions too."""
    return PixArtAlphaPipeline(**_parts(scaling_factor=0.18215, use_additional_conditions=True))


def build_sigma() -> PixArtSigmaPipeline:
    """PixArt-Sigma at 1024: without those conditions."""
    return PixArtSigmaPipeline(**_parts(scaling_factor=0.13025, use_additional_conditions=False))


def _parts(scaling_factor: float, use_additional_conditions: bool) -> dict[str, object]:
    t5 = t5_tokenizer()
    return {
        "transformer": _transformer(use_additional_conditions),
        "scheduler": DPMSolverMultistepScheduler(),
        "vae": autoencoder(seed=31, latent_channels=4, scaling_factor=scaling_factor),
        "text_encoder": t5_encoder(t5, seed=32),
        "tokenizer": t5,
    }


def _transformer(use_additional_conditions: bool) -> PixArtTransformer2DModel:
    model = PixArtTransformer2DModel(
        sample_size=128,  # the pipelines choose conditions and size bins by this very number
        num_layers=4,
        attention_head_dim=24,  # PixArt-alpha cuts the model width into three size conditions
        num_attention_heads=4,
        in_channels=4,
        out_channels=8,  # noise and its variance
        patch_size=2,
        cross_attention_dim=96,  # heads × head width
        caption_channels=WIDTH,
        interpolation_scale=2,
        use_additional_conditions=use_additional_conditions,
    )
    return randomise(model, seed=33)
