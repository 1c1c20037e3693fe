"""VAR (Visual Autoregressive Modeling, arXiv:2404.02905): sizes and published checkpoints, as data."""

from __future__ import annotations

from dataclasses import dataclass

from mlenergy.diffusion.models.next_scale import NextScale

HUB_ID = "FoundationVision/var"
VAE_FILE = "vae_ch160v4096z32.pth"
CLASSES = 1000  # of ImageNet; one embedding more stands for "none"

SIDES_256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
SIDES_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)


@dataclass(frozen=True)
class VqVaeConfig:
    """The multi-scale VQ-VAE (section 3.2): codebook, residual convolutions and decoder.

    One codebook and one latent map serve all scales; `residual_convolutions` are shared by neighbouring ones.
    """

    vocabulary: int = 4096  # V
    latent_channels: int = 32  # C of a codebook entry
    channels: int = 160
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)  # of `channels`, from the finest level
    residual_blocks: int = 2  # a level in the encoder; the decoder has one more
    residual_convolutions: int = 4
    residual_weight: float = 0.5  # share of the convolution in its output; the rest is its input

    @property
    def stride(self) -> int:
        """Pixels a latent cell and side."""
        return 1 << (len(self.multipliers) - 1)


@dataclass(frozen=True)
class VarConfig:
    """The transformer and its VQ-VAE. Published sizes have width 64 × depth and as many heads as layers."""

    depth: int  # layers
    width: int  # features of a token
    heads: int
    sides: tuple[int, ...] = SIDES_256  # of the square token maps, coarse to fine
    classes: int = CLASSES
    shared_norm: bool = False  # one adaptive norm for all blocks, with an offset a block
    mlp_ratio: int = 4
    vae: VqVaeConfig = VqVaeConfig()

    @property
    def tokens(self) -> int:
        """Tokens of one image over all scales."""
        return sum(side * side for side in self.sides)

    @property
    def side_px(self) -> int:
        """Side of the image in pixels."""
        return self.sides[-1] * self.vae.stride


def published(depth: int) -> VarConfig:
    """The published model of this depth: 16, 20, 24 and 30 make 256 × 256 pixels, 36 makes 512 × 512."""
    large = depth == 36
    sides = SIDES_512 if large else SIDES_256
    return VarConfig(depth, 64 * depth, depth, sides, shared_norm=large)


TINY_CONFIG = VarConfig(
    depth=3,
    width=64,
    heads=4,
    sides=(1, 2, 3, 4),
    vae=VqVaeConfig(vocabulary=96, latent_channels=8, channels=32, residual_blocks=1),
)


def next_scale(config: VarConfig, source: str | None, files: dict[str, str]) -> NextScale:
    """Facts of a VAR model; sampling as in the authors' demonstration."""
    side = config.side_px
    return NextScale(
        config=config,
        schedules={(side, side): tuple((rows, rows) for rows in config.sides)},
        files=files,
        source=source,
        classes=config.classes,
        top_k=900,
        top_p=0.95,
    )


def files_of(depth: int) -> dict[str, str]:
    """Component -> file of the published checkpoint; the transformer's holds the class embedding."""
    return {"transformer": f"var_d{depth}.pth", "vae": VAE_FILE}
