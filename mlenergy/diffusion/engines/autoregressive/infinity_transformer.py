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
class Cache:
    """Everything that the scales of a generation share. Forwards write into its tensors and replace none, so
    that one cache serves any number of generations, and CUDA graphs find it where it was.

    pooled: (B, C), float32, the text as one vector; it conditions the norms and starts the sequence.
    modulation: (B, 1, 6, C), float32; the part of the adaptive norms that all blocks share.
    text_keys, text_values: one (B, H, L, C / H) a block.
    visible: (B, 1, 1, L), False at padding.
    keys, values: one (B, H, tokens of all scales, C / H) a block.
    cosines, sines: (tokens of all scales, C / H / 2), of the rotary positions.
    """

    size: ImageSize
    pooled: torch.Tensor
    modulation: torch.Tensor
    text_keys: tuple[torch.Tensor, ...]
    text_values: tuple[torch.Tensor, ...]
    visible: torch.Tensor
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    cosines: torch.Tensor
    sines: torch.Tensor

    def span(self, scale: int) -> tuple[int, int]:
        """First token of a scale among all, and the one after its last."""
        counts = [rows * columns for rows, columns in self.size.scales]
        return sum(counts[:scale]), sum(counts[: scale + 1])


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
        """(B, N, C) float32 -> (B, N, C) float32; see `Cache` for the other shapes."""
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

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks in order; checkpoints hold them in several lists."""
        lists = (cast(nn.ModuleDict, chunk)["module"] for chunk in self.block_chunks)
        return [block for blocks in lists for block in cast(nn.ModuleList, blocks)]

    def unconditional(self, rows: int, length: int) -> torch.Tensor:
        """The learned text that stands for none: (rows, length, text channels)."""
        return self.cfg_uncond[:length].expand(rows, -1, -1)

    def new_cache(self, rows: int, text_tokens: int, size: ImageSize) -> Cache:
        """An empty cache for batches of this size, padded to this number of text tokens."""
        weight, config = self.word_embed.weight, self.config
        heads, channels = config.heads, config.width // config.heads

        def of_blocks(tokens: int) -> tuple[torch.Tensor, ...]:
            return tuple(weight.new_empty((rows, heads, tokens, channels)) for _ in range(config.depth))

        cosines, sines = rotary_table(size.scales, size.grid, channels)
        return Cache(
            size=size,
            pooled=weight.new_empty((rows, config.width), dtype=torch.float32),
            modulation=weight.new_empty((rows, 1, 6, config.width), dtype=torch.float32),
            text_keys=of_blocks(text_tokens),
            text_values=of_blocks(text_tokens),
            visible=weight.new_empty((rows, 1, 1, text_tokens), dtype=torch.bool),
            keys=of_blocks(size.tokens),
            values=of_blocks(size.tokens),
            cosines=cosines.to(weight.device),
            sines=sines.to(weight.device),
        )

    def start(self, rows: int) -> torch.Tensor:
        """Input of the first scale, (rows, 1, C) in float32; the forward adds the text to it."""
        first: torch.Tensor = self.pos_start.float() + self.lvl_embed.weight[0].float()
        return first.expand(rows, -1, -1)

    def embed(self, codes: torch.Tensor, scale: int) -> torch.Tensor:
        """Input of a later scale, (B, N, C) in float32: the image so far at its size, (B, N, d)."""
        x: torch.Tensor = self.word_embed(codes.to(self.word_embed.weight.dtype)).float()
        return x + self.lvl_embed.weight[scale].float()

    def forward(
        self, x: torch.Tensor, features: torch.Tensor, visible: torch.Tensor, cache: Cache, scale: int
    ) -> torch.Tensor:
        """Logits of a scale, (B, N, d, 2) in float32. The first scale reads the text as well.

        x: (B, N, C); features: (B, L, text channels), padded; visible: (B, L), False at padding.
        """
        if scale == 0:
            self._read(features, visible, cache)
            x = x + cache.pooled[:, None]
        start, end = cache.span(scale)
        for index, block in enumerate(self.blocks):
            x = block(
                x,
                cache.modulation,
                cache.text_keys[index],
                cache.text_values[index],
                cache.visible,
                cache.cosines[start:end],
                cache.sines[start:end],
                cache.keys[index],
                cache.values[index],
                start,
            )
        logits = _in_float32(self.head, self.head_nm(x, cache.pooled))
        return logits.view(*logits.shape[:2], -1, 2)

    def _read(self, features: torch.Tensor, visible: torch.Tensor, cache: Cache) -> None:
        """Write the text into the cache as the blocks take it."""
        dtype = self.word_embed.weight.dtype
        cache.visible.copy_(visible[:, None, None])
        normed = F.rms_norm(features.float(), features.shape[-1:], self.text_norm.weight.float(), _EPS)
        normed = normed.to(dtype)
        cache.pooled.copy_(self.text_proj_for_sos["ca"](normed, cache.visible))
        modulation = _in_float32(self.shared_ada_lin, cache.pooled)
        cache.modulation.copy_(modulation.view(len(modulation), 1, 6, -1))
        projected = self.text_proj_for_ca(normed)
        for block, keys, values in zip(self.blocks, cache.text_keys, cache.text_values, strict=True):
            new_keys, new_values = cast(Block, block).ca.text(projected)
            keys.copy_(new_keys)
            values.copy_(new_values)


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
