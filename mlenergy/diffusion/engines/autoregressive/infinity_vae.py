"""Infinity's decoder: codes of bits to pixels, by convolutions without attention.

It is the decoder of FLUX's VAE without the attention at its lowest resolution, which diffusers has.
"""

from __future__ import annotations

from typing import cast

import torch
from diffusers.models.autoencoders.vae import Decoder
from torch import nn

from mlenergy.diffusion.models.infinity import DecoderConfig

PER_LEVEL = 3  # residual blocks


class InfinityVae(nn.Module):
    """The decoder; encoder and quantiser belong to training."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.decoder = Decoder(
            in_channels=config.code_bits,
            out_channels=3,
            up_block_types=("UpDecoderBlock2D",) * len(config.channels),
            block_out_channels=config.channels,
            layers_per_block=PER_LEVEL - 1,  # diffusers adds one
            norm_num_groups=config.groups,
            mid_block_add_attention=False,
        )

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """(B, d, rows, columns) -> (B, 3, height, width) in [-1, 1]."""
        weight = self.decoder.conv_in.weight
        return cast(torch.Tensor, self.decoder(codes.to(weight.dtype)).clamp(-1, 1))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """The same as `decode`."""
        return self.decode(codes)
