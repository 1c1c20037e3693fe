"""VAR's multi-scale VQ-VAE (arXiv:2404.02905, section 3.2): from token maps to the latent map and to pixels.

The latent map f̂ is a sum over the scales: each token map is looked up in the one codebook Z, resized to
the largest map, passed through a residual convolution φ and added (algorithm 2). A decoder of the VQGAN kind
turns the final map into pixels. Generating needs no encoder; its shapes are here as checkpoints hold it.

Shapes: B images, C channels of the latent map, h × w its cells, V entries of the codebook. Modules are named
as the published checkpoints name their keys.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mlenergy.diffusion.models.var import VqVaeConfig

_NORM_GROUPS = 32
_NORM_EPS = 1e-6


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_NORM_GROUPS, channels, eps=_NORM_EPS)


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class ResidualBlock(nn.Module):
    """Two convolutions, each after a group norm and SiLU, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs), _conv(inputs, outputs)
        self.norm2, self.conv2 = _norm(outputs), _conv(outputs, outputs)
        self.nin_shortcut = nn.Identity() if inputs == outputs else _conv(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        hidden = self.conv1(functional.silu(self.norm1(x)))
        out: torch.Tensor = self.nin_shortcut(x) + self.conv2(functional.silu(self.norm2(hidden)))
        return out


class SpatialAttention(nn.Module):
    """Attention of every cell to every cell, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.qkv = _conv(channels, 3 * channels, 1)
        self.proj_out = _conv(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c, h, w) -> (B, c, h, w)."""
        images, channels, rows, columns = x.shape
        qkv = self.qkv(self.norm(x)).view(images, 3, channels, rows * columns).transpose(2, 3)
        query, key, value = qkv.unsqueeze(2).unbind(1)  # each (B, 1, h w, c)
        found = functional.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = x + self.proj_out(found.transpose(2, 3).reshape(x.shape))
        return out


class Level(nn.Module):
    """Residual blocks of one resolution, with attention after each where it is the lowest one."""

    def __init__(self, inputs: int, outputs: int, blocks: int, attends: bool) -> None:
        super().__init__()
        sizes = [inputs] + [outputs] * (blocks - 1)
        self.block = nn.ModuleList(ResidualBlock(size, outputs) for size in sizes)
        self.attn = nn.ModuleList(SpatialAttention(outputs) for _ in range(blocks if attends else 0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn) > 0:
                x = self.attn[index](x)
        return x


class Resample(nn.Module):
    """A convolution after doubling the sides (up), or one that halves them (down)."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1 if stride == 1 else 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c, h, w) -> (B, c, 2h, 2w)."""
        out: torch.Tensor = self.conv(functional.interpolate(x, scale_factor=2, mode="nearest"))
        return out


class Middle(nn.Module):
    """Two residual blocks around attention, at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1, self.block_2 = ResidualBlock(channels, channels), ResidualBlock(channels, channels)
        self.attn_1 = SpatialAttention(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c, h, w) -> (B, c, h, w)."""
        out: torch.Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Decoder(nn.Module):
    """From the latent map (B, C, h, w) to pixels (B, 3, s h, s w), s being the stride."""

    def __init__(self, config: VqVaeConfig) -> None:
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        lowest, blocks = len(widths) - 1, config.residual_blocks + 1
        self.conv_in = _conv(config.latent_channels, widths[lowest])
        self.mid = Middle(widths[lowest])
        self.up = nn.ModuleList()  # from the finest level, as the checkpoints count them
        for level, width in enumerate(widths):
            part = Level(widths[min(level + 1, lowest)], width, blocks, attends=level == lowest)
            if level > 0:
                part.add_module("upsample", Resample(width))
            self.up.append(part)
        self.norm_out = _norm(widths[0])
        self.conv_out = _conv(widths[0], 3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, 3, s h, s w)."""
        x = self.mid(self.conv_in(z))
        for level in reversed(range(len(self.up))):
            part = self.up[level]
            x = part(x)
            if level > 0:
                x = part.get_submodule("upsample")(x)
        out: torch.Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return out


class EncoderShapes(nn.Module):
    """Parameters of the encoder, which checkpoints hold; it is for training and has no forward."""

    def __init__(self, config: VqVaeConfig) -> None:
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        lowest = len(widths) - 1
        self.conv_in = _conv(3, config.channels)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            inputs = config.channels if level == 0 else widths[level - 1]
            part = Level(inputs, width, config.residual_blocks, attends=level == lowest)
            if level < lowest:
                part.add_module("downsample", Resample(width, stride=2))
            self.down.append(part)
        self.mid = Middle(widths[lowest])
        self.norm_out = _norm(widths[lowest])
        self.conv_out = _conv(widths[lowest], config.latent_channels)


class ResidualConvolutions(nn.Module):
    """The convolutions φ, shared by neighbouring scales."""

    def __init__(self, config: VqVaeConfig) -> None:
        super().__init__()
        channels = config.latent_channels
        self.weight = config.residual_weight
        self.qresi_ls = nn.ModuleList(_conv(channels, channels) for _ in range(config.residual_convolutions))

    def forward(self, x: torch.Tensor, scale: int, scales: int) -> torch.Tensor:
        """(B, C, h, w) -> the same: a mixture of the map and its convolution."""
        return torch.lerp(x, self.qresi_ls[self.index(scale, scales)](x), self.weight)

    def index(self, scale: int, scales: int) -> int:
        """The convolution of a scale: the one whose place in (0, 1) is nearest to the scale's in [0, 1].

        Four stand at 1/12, 13/36, 23/36 and 11/12; another number of them in the middle of equal parts. The
        third and the eighth of ten scales lie halfway between two, where rounding decides: so the places
        are numpy's, as in training.
        """
        count = len(self.qresi_ls)
        margin = 1 / 3 / count if count == 4 else 1 / 2 / count
        places = np.linspace(margin, 1 - margin, count)
        return int(np.argmin(np.abs(places - scale / (scales - 1))))


class Quantizer(nn.Module):
    """The codebook Z and the residual convolutions φ."""

    def __init__(self, config: VqVaeConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.latent_channels)
        self.quant_resi = ResidualConvolutions(config)

    def accumulate(
        self, total: torch.Tensor, tokens: torch.Tensor, side: int, scale: int, scales: int
    ) -> torch.Tensor:
        """The latent map f̂ (B, C, h, w) with one scale's tokens (B, side²) added."""
        looked_up = self.embedding(tokens).transpose(1, 2).unflatten(2, (side, side))
        if side != total.shape[-1]:
            looked_up = functional.interpolate(looked_up, size=total.shape[-2:], mode="bicubic")
        added: torch.Tensor = self.quant_resi(looked_up, scale, scales)
        return total + added


class VarVae(nn.Module):
    """The part of the VQ-VAE that generating needs: quantizer, one convolution, decoder."""

    def __init__(self, config: VqVaeConfig) -> None:
        super().__init__()
        self.config = config
        self.quantize = Quantizer(config)
        self.post_quant_conv = _conv(config.latent_channels, config.latent_channels)
        self.decoder = Decoder(config)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, s h, s w) in [-1, 1] of the final latent map (B, C, h, w)."""
        out: torch.Tensor = self.decoder(self.post_quant_conv(latent))
        return out.clamp(-1, 1)


def training_parts(config: VqVaeConfig) -> dict[str, torch.Size]:
    """Key -> shape of the parameters that a checkpoint holds and generating does not need."""
    with torch.device("meta"):
        encoder, quant_conv = EncoderShapes(config), _conv(config.latent_channels, config.latent_channels)
    parts = {"encoder": encoder, "quant_conv": quant_conv}
    return {
        f"{prefix}.{name}": parameter.shape
        for prefix, part in parts.items()
        for name, parameter in part.named_parameters()
    }
