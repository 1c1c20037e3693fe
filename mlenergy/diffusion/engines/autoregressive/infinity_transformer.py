"""Infinity's transformer (arXiv 2412.04431): all bits of all tokens of a scale in one forward.

Letters in shapes: B rows (images, twice as many under guidance), N tokens of a scale, L text tokens,
C width, H heads, d bits of a token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from mlenergy.diffusion.engines.autoregressive.infinity_rotary import rotary_table, rotate
from mlenergy.diffusion.models.infinity import InfinityConfig
from mlenergy.diffusion.models.infinity_sizes import ImageSize

_EPS = 1e-6
_MOST_LOG_SCALE = math.log(100)  # of the learned factor of queries
_LEVELS = 15  # rows of the table of scales; the published models use 13


@dataclass(frozen=True)
class Text:
    """A batch's text as the blocks take it; computed once an image.

    pooled: (B, C), float32; it conditions the norms and starts the sequence.
    modulation: (B, 1, 6, C), float32; the part of the adaptive norms that all blocks share.
    keys, values: one (B, H, L, C / H) a block.
    visible: (B, 1, 1, L), False at padding.
    """

    pooled: torch.Tensor
    modulation: torch.Tensor
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    visible: torch.Tensor


class Memory:
    """The state of one call: the text, and keys and values of the scales so far.

    Keys and values are written into tensors that have room for all scales, (B, H, tokens, C / H) a block:
    growing them by concatenation would copy all earlier scales at each scale.

    Args:
        features: (B, L, text channels), padded.
        visible: (B, L), False at padding.
        size: of the image.
    """

    def __init__(self, features: torch.Tensor, visible: torch.Tensor, size: ImageSize) -> None:
        self.features = features
        self.visible = visible
        self.size = size
        self.text: Text | None = None  # from the first scale on
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.scale = 0  # the next one
        self.filled = 0  # tokens of earlier scales

    def make_room(self, text: Text) -> None:
        """Take the text, and memory for keys and values of all scales."""
        rows, heads, _, channels = text.keys[0].shape
        shape = (rows, heads, self.size.tokens, channels)
        self.text = text
        self.keys = [text.keys[0].new_empty(shape) for _ in text.keys]
        self.values = [text.keys[0].new_empty(shape) for _ in text.keys]


class TextPool(nn.Module):
    """Cross-attention of one learned query: the text as one vector."""

    def __init__(self, width: int, text_channels: int, heads: int) -> None:
        super().__init__()
        self.mat_q = nn.Parameter(torch.empty(1, heads, width // heads))
        self.mat_kv = nn.Linear(text_channels, 2 * width, bias=False)
        self.v_bias = nn.Parameter(torch.empty(width))
        self.proj = nn.Linear(width, width)

    def forward(self, text: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """(B, L, text channels) and (B, 1, 1, L) -> (B, C)."""
        keys, values = _keys_and_values(self.mat_kv, self.v_bias, text, self.mat_q.shape[1])
        query = self.mat_q[:, :, None].to(keys).expand(len(text), -1, -1, -1)
        return cast(torch.Tensor, self.proj(_attend(query, keys, values, visible)).squeeze(1))


class SelfAttention(nn.Module):
    """Attention between unit queries and keys, whose logits are scaled by one learned factor a head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale_mul_1H11 = nn.Parameter(torch.empty(1, heads, 1, 1))  # logarithms
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.empty(width))
        self.v_bias = nn.Parameter(torch.empty(width))
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: torch.Tensor,
        cosines: torch.Tensor,
        sines: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        filled: int,
        visible: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, N, C) -> (B, N, C); writes this scale's keys and values behind the `filled` ones.

        visible: (N, filled + N), which token sees which; None where each sees all, as in one scale.
        """
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in F.linear(x, self.mat_qkv.weight).chunk(3, dim=-1)
        )
        factor = self.scale_mul_1H11.float().clamp(max=_MOST_LOG_SCALE).exp()
        query = F.normalize((query + _by_head(self.q_bias, self.heads)).float(), dim=-1, eps=1e-12) * factor
        key = F.normalize(key.float(), dim=-1, eps=1e-12)
        value = value + _by_head(self.v_bias, self.heads)
        end = filled + x.shape[1]
        keys[:, :, filled:end] = rotate(key, cosines, sines)
        values[:, :, filled:end] = value
        query = rotate(query, cosines, sines).to(x.dtype)
        return cast(
            torch.Tensor, self.proj(_attend(query, keys[:, :, :end], values[:, :, :end], visible, scale=1.0))
        )


class CrossAttention(nn.Module):
    """Attention of image tokens to the text."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mat_q = nn.Linear(width, width)
        self.mat_kv = nn.Linear(width, 2 * width, bias=False)
        self.v_bias = nn.Parameter(torch.empty(width))
        self.proj = nn.Linear(width, width)

    def text(self, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, L, C) -> keys and values (B, H, L, C / H); the same at every scale."""
        return _keys_and_values(self.mat_kv, self.v_bias, text, self.heads)

    def forward(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """(B, N, C) -> (B, N, C)."""
        query = self.mat_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return cast(torch.Tensor, self.proj(_attend(query, keys, values, visible)))


class FeedForward(nn.Module):
    """Two matrices with GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, C) -> (B, N, C)."""
        return cast(torch.Tensor, self.fc2(F.gelu(self.fc1(x), approximate="tanh")))


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward; the text scales and shifts two of their norms.

    What is handed from block to block stays float32, as the published models run it.
    """

    def __init__(self, config: InfinityConfig) -> None:
        super().__init__()
        self.sa = SelfAttention(config.width, config.heads)
        self.ca = CrossAttention(config.width, config.heads)
        self.ca_norm = nn.LayerNorm(config.width, eps=_EPS)
        self.ffn = FeedForward(config.width, config.width * config.mlp_ratio)
        self.ada_gss = nn.Parameter(torch.empty(1, 1, 6, config.width))

    def forward(
        self,
        x: torch.Tensor,
        modulation: torch.Tensor,
        text_keys: torch.Tensor,
        text_values: torch.Tensor,
        text_visible: torch.Tensor,
        cosines: torch.Tensor,
        sines: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        filled: int,
        visible: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, N, C) float32 -> (B, N, C) float32; see `Text` and `Memory` for the other shapes."""
        dtype = self.ffn.fc1.weight.dtype
        gate_1, gate_2, scale_1, scale_2, shift_1, shift_2 = (self.ada_gss.float() + modulation).unbind(2)
        attended = self.sa(
            _norm(x, scale_1, shift_1).to(dtype), cosines, sines, keys, values, filled, visible
        )
        x = x + attended.float() * gate_1
        normed = F.layer_norm(
            x, x.shape[-1:], self.ca_norm.weight.float(), self.ca_norm.bias.float(), self.ca_norm.eps
        )
        x = x + self.ca(normed.to(dtype), text_keys, text_values, text_visible).float()
        out: torch.Tensor = x + self.ffn(_norm(x, scale_2, shift_2).to(dtype)).float() * gate_2
        return out


class LastNorm(nn.Module):
    """The adaptive norm before the head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """(B, N, C) and (B, C) -> (B, N, C), in float32."""
        scale, shift = _in_float32(self.ada_lin, pooled)[:, None].chunk(2, dim=-1)
        return _norm(x, scale, shift)


class InfinityTransformer(nn.Module):
    """The whole transformer; one call is one scale.

    Parameters have the names of the published checkpoints. They are empty: to be loaded, or filled with
    random weights.
    """

    def __init__(self, config: InfinityConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cfg_uncond = nn.Parameter(torch.empty(config.text_tokens, config.text.width))
        self.text_norm = nn.RMSNorm(config.text.width, eps=_EPS)
        pool = TextPool(width, config.text.width, config.pool_heads)
        self.text_proj_for_sos = nn.ModuleDict({"ca": pool})
        self.text_proj_for_ca = nn.Sequential(
            nn.Linear(config.text.width, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.pos_start = nn.Parameter(torch.empty(1, 1, width))
        self.lvl_embed = nn.Embedding(_LEVELS, width)
        self.word_embed = nn.Linear(config.bits, width)
        self.shared_ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        per_chunk = config.depth // config.chunks
        self.block_chunks = nn.ModuleList(
            nn.ModuleDict({"module": nn.ModuleList(Block(config) for _ in range(per_chunk))})
            for _ in range(config.chunks)
        )
        self.head_nm = LastNorm(width)
        self.head = nn.Linear(width, 2 * config.bits)
        self._tables: dict[tuple[ImageSize, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks in order; checkpoints hold them in several lists."""
        lists = (cast(nn.ModuleDict, chunk)["module"] for chunk in self.block_chunks)
        return [block for blocks in lists for block in cast(nn.ModuleList, blocks)]

    def unconditional(self, rows: int, length: int) -> torch.Tensor:
        """The learned text that stands for none: (rows, length, text channels)."""
        return self.cfg_uncond[:length].expand(rows, -1, -1)

    def read(self, features: torch.Tensor, visible: torch.Tensor) -> Text:
        """The text as the blocks take it: (B, L, text channels) and (B, L), which is False at padding."""
        dtype = self.word_embed.weight.dtype
        mask = visible[:, None, None]
        normed = F.rms_norm(features.float(), features.shape[-1:], self.text_norm.weight.float(), _EPS)
        normed = normed.to(dtype)
        pooled = self.text_proj_for_sos["ca"](normed, mask).float()
        modulation = _in_float32(self.shared_ada_lin, pooled).view(len(pooled), 1, 6, -1)
        projected = self.text_proj_for_ca(normed)
        pairs = [cast(Block, block).ca.text(projected) for block in self.blocks]
        keys, values = zip(*pairs, strict=True)
        return Text(pooled, modulation, keys, values, mask)

    def forward(self, codes: torch.Tensor | None, memory: Memory) -> torch.Tensor:
        """Logits of the next scale, (B, N, d, 2) in float32. The first scale reads the text as well.

        codes: (B, N, d), the image so far at the size of this scale; None at the first scale.
        """
        if memory.text is None:
            memory.make_room(self.read(memory.features, memory.visible))
        text = cast(Text, memory.text)
        x = self.embed(codes, text.pooled, memory.scale)
        start, end = memory.filled, memory.filled + x.shape[1]
        cosines, sines = (part[start:end] for part in self._rotary(memory.size, x.device))
        for index, block in enumerate(self.blocks):
            x = block(
                x,
                text.modulation,
                text.keys[index],
                text.values[index],
                text.visible,
                cosines,
                sines,
                memory.keys[index],
                memory.values[index],
                start,
            )
        memory.scale, memory.filled = memory.scale + 1, end
        logits = _in_float32(self.head, self.head_nm(x, text.pooled))
        return logits.view(*logits.shape[:2], -1, 2)

    def embed(self, codes: torch.Tensor | None, pooled: torch.Tensor, scale: int) -> torch.Tensor:
        """A scale's tokens as the first block takes them, (B, N, C) in float32."""
        if codes is None:
            x = pooled[:, None] + self.pos_start.float()
        else:
            x = self.word_embed(codes.to(self.word_embed.weight.dtype)).float()
        return x + self.lvl_embed.weight[scale].float()

    def _rotary(self, size: ImageSize, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of all tokens; computed once a size."""
        if (size, device) not in self._tables:
            table = rotary_table(size.scales, size.grid, self.config.width // self.config.heads)
            self._tables[size, device] = table[0].to(device), table[1].to(device)
        return self._tables[size, device]


def _norm(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=_EPS) * (1 + scale) + shift


def _in_float32(layers: nn.Linear | nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """A linear layer, or SiLU and one, in float32, whatever its weights are."""
    if isinstance(layers, nn.Sequential):
        return _in_float32(cast(nn.Linear, layers[1]), F.silu(x))
    return F.linear(x.float(), layers.weight.float(), layers.bias.float())


def _by_head(bias: torch.Tensor, heads: int) -> torch.Tensor:
    """(C,) -> (H, 1, C / H)."""
    return bias.view(heads, 1, -1)


def _keys_and_values(
    matrix: nn.Linear, value_bias: torch.Tensor, text: torch.Tensor, heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, L, channels) -> two (B, H, L, C / H); keys have no bias, values have one."""
    keys, values = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in matrix(text).chunk(2, dim=-1))
    return keys, values + _by_head(value_bias, heads)


def _attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    visible: torch.Tensor | None,
    scale: float | None = None,
) -> torch.Tensor:
    """Attention with the heads side by side again: (B, H, N, C / H) -> (B, N, C)."""
    attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible, scale=scale)
    return attended.transpose(1, 2).flatten(2)
