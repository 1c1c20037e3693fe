"""The tiny autoencoder that the families share: 8 pixels a latent cell, as the real ones."""

from __future__ import annotations

from diffusers import AutoencoderKL

from mlenergy.diffusion.weights.tiny.weights import randomise


def autoencoder(seed: int, latent_channels: int, **config: object) -> AutoencoderKL:
    """AutoencoderKL with four levels; `config` sets scaling and shift as the family's own has them."""
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=latent_channels,
        **config,
    )
    return randomise(model, seed)
