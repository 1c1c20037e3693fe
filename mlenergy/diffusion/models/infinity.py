"""Infinity (arXiv 2412.04431): sizes of the published models and the names of their files, as data.

Source: FoundationVision/Infinity (configurations, notebooks, scripts/infer.sh), read in November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass

HUB_ID = "FoundationVision/Infinity"
FLAN_T5_XL = "google/flan-t5-xl"
MOST_TEXT_TOKENS = 512  # rows of the learned text of the unconditional half


@dataclass(frozen=True)
class DecoderConfig:
    """The VAE's decoder: convolutions without attention.

    channels: of each level, finest first; every level but the finest doubles height and width.
    """

    code_bits: int
    channels: tuple[int, ...]
    groups: int = 32  # of its group norms

    @property
    def stride(self) -> int:
        """Pixels a code and side."""
        return 1 << (len(self.channels) - 1)


@dataclass(frozen=True)
class TextConfig:
    """The T5 whose encoder reads the prompts."""

    source: str | None  # hub id; None for a model without published weights
    layers: int
    width: int  # channels of its output
    heads: int
    head_dim: int
    hidden: int
    vocabulary: int = 32_128


@dataclass(frozen=True)
class InfinityConfig:
    """The transformer, the decoder and the text encoder of one model.

    patch: codes a side that one token holds; its bits are code_bits × patch².
    text_tokens: most text tokens.
    pool_heads: heads of the attention that pools the text into one vector.
    temperature: logits are divided by it.
    chunks: the published file keeps the blocks in so many lists of equal length.
    """

    depth: int
    width: int
    heads: int
    vae: DecoderConfig
    text: TextConfig
    patch: int = 1
    text_tokens: int = MOST_TEXT_TOKENS
    pool_heads: int = 16
    mlp_ratio: int = 4
    temperature: float = 1.0
    chunks: int = 8

    @property
    def bits(self) -> int:
        """Bits of one token."""
        return self.vae.code_bits * self.patch**2


_XL = TextConfig(FLAN_T5_XL, layers=24, width=2048, heads=32, head_dim=64, hidden=5120)

INFINITY_2B = InfinityConfig(
    depth=32,
    width=2048,
    heads=16,
    vae=DecoderConfig(32, (128, 256, 512, 512, 512)),
    text=_XL,
    temperature=0.5,
)
# A token is 2 × 2 codes of 14 bits at half the stride, so that an image has as many tokens as with the 2B.
INFINITY_8B = InfinityConfig(
    depth=40,
    width=3584,
    heads=28,
    vae=DecoderConfig(14, (128, 256, 512, 512)),
    text=_XL,
    patch=2,
)
TINY = InfinityConfig(
    depth=2,
    width=32,
    heads=2,
    vae=DecoderConfig(3, (8, 8, 16, 16), groups=4),
    text=TextConfig(None, layers=2, width=32, heads=2, head_dim=16, hidden=64, vocabulary=256),
    patch=2,
    text_tokens=64,
    pool_heads=2,
    chunks=1,
)

FILES_2B = {"transformer": "infinity_2b_reg.pth", "vae": "infinity_vae_d32reg.pth"}
FILES_8B = {"transformer": "infinity_8b_weights", "vae": "infinity_vae_d56_f8_14_patchify.pth"}
