"""VAR's transformer (arXiv:2404.02905, sections 3.1 and 4): next-scale prediction with cached keys.

Words of the paper: a token map r_k of h_k × w_k tokens at each of K scales; the transformer predicts
p(r_k | r_1 … r_(k-1), class), all tokens of a scale at once. Within a scale attention is full; earlier scales
are seen by their cached keys and values, so that generating needs no mask.

Shapes: R rows (images, twice as many under guidance), n tokens of a scale, D features, H heads, V entries of
the codebook, L tokens of all scales. Modules are named as the published checkpoints name their keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from mlenergy.diffusion.models.var import VarConfig

NORM_EPS = 1e-6
MOST_LOG_SCALE = math.log(100)

# (keys, values) of one layer, (R, H, L, D / H) each: written scale by scale.
LayerCache = tuple[torch.Tensor, torch.Tensor]


class Attention(nn.Module):
    """Self-attention over a scale and all before it, with queries and keys of unit length.

    A learned factor a head (kept as a logarithm, at most log 100) takes the place of 1/√d. Query and value
    have a bias, the key none.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0)))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, cache: LayerCache, first: int) -> torch.Tensor:
        """(R, n, D) -> (R, n, D); keys and values are written to `cache` from position `first`."""
        rows, count, width = x.shape
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = functional.linear(x, self.mat_qkv.weight, bias)
        query, key, value = qkv.view(rows, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        factor = self.scale_mul_1H11.clamp_max(MOST_LOG_SCALE).exp()
        query = functional.normalize(query, dim=-1) * factor
        keys, values = cache
        end = first + count
        keys[:, :, first:end] = functional.normalize(key, dim=-1)
        values[:, :, first:end] = value
        found = functional.scaled_dot_product_attention(
            query, keys[:, :, :end], values[:, :, :end], scale=1.0
        )
        out: torch.Tensor = self.proj(found.transpose(1, 2).reshape(rows, count, width))
        return out


class FeedForward(nn.Module):
    """Two linear layers with GELU (by tanh) between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(R, n, D) -> (R, n, D)."""
        out: torch.Tensor = self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))
        return out


def adaptive_norm(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Layer norm without weights of its own, scaled and shifted by what the class says: AdaLN."""
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale)


class Block(nn.Module):
    """Attention and feed-forward, each under an adaptive norm and a learned gate.

    The class gives six vectors a block: gates, scales and shifts of both halves, from a linear layer of the
    block's own (`ada_lin`), or, where one layer serves all blocks, from that one plus an offset (`ada_gss`).
    """

    def __init__(self, config: VarConfig) -> None:
        super().__init__()
        width = config.width
        self.attn = Attention(width, config.heads)
        self.ffn = FeedForward(width, config.mlp_ratio * width)
        if config.shared_norm:
            self.ada_gss = nn.Parameter(torch.zeros(1, 1, 6, width))
        else:
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.shared_norm = config.shared_norm

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor, cache: LayerCache, first: int
    ) -> torch.Tensor:
        """(R, n, D) -> (R, n, D).

        condition: (R, D), or with a shared norm the six vectors (R, 1, 6, D).
        """
        if self.shared_norm:
            six = self.ada_gss + condition
        else:
            six = self.ada_lin(condition).view(-1, 1, 6, x.shape[-1])
        gate_1, gate_2, scale_1, scale_2, shift_1, shift_2 = six.unbind(2)
        x = x + gate_1 * self.attn(adaptive_norm(x, scale_1, shift_1), cache, first)
        out: torch.Tensor = x + gate_2 * self.ffn(adaptive_norm(x, scale_2, shift_2))
        return out


class HeadNorm(nn.Module):
    """The adaptive norm before the head: a scale and a shift from the class."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """(R, n, D) -> (R, n, D); condition: (R, D)."""
        scale, shift = self.ada_lin(condition).view(-1, 1, 2, x.shape[-1]).unbind(2)
        return adaptive_norm(x, scale, shift)


class VarTransformer(nn.Module):
    """All of VAR but the class embedding, which is a component of its own, and the VQ-VAE."""

    def __init__(self, config: VarConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.pos_start = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_1LC = nn.Parameter(torch.zeros(1, config.tokens, width))
        self.lvl_embed = nn.Embedding(len(config.sides), width)
        self.word_embed = nn.Linear(config.vae.latent_channels, width)
        if config.shared_norm:
            self.shared_ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head_nm = HeadNorm(width)
        self.head = nn.Linear(width, config.vae.vocabulary)
        sides = config.sides
        self.firsts = [sum(side * side for side in sides[:scale]) for scale in range(len(sides) + 1)]

    def start(self, condition: torch.Tensor) -> torch.Tensor:
        """The first scale's input (R, 1, D): the class vector (R, D) itself, at the start position."""
        return condition.unsqueeze(1) + self.pos_start + self._positions(0)

    def embed(self, features: torch.Tensor, scale: int) -> torch.Tensor:
        """The input (R, n, D) of a later scale, from the latent map resized to it: (R, n, C)."""
        out: torch.Tensor = self.word_embed(features) + self._positions(scale)
        return out

    def new_cache(self, rows: int, device: torch.device, dtype: torch.dtype) -> list[LayerCache]:
        """Room for the keys and values of all scales in every layer: 2 × depth × R × L × D values."""
        config = self.config
        shape = (rows, config.heads, config.tokens, config.width // config.heads)
        return [
            (torch.empty(shape, device=device, dtype=dtype), torch.empty(shape, device=device, dtype=dtype))
            for _ in self.blocks
        ]

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor, cache: Sequence[LayerCache], scale: int
    ) -> torch.Tensor:
        """Logits over the codebook of all tokens of one scale, in float32: (R, n, D) -> (R, n, V).

        condition: class vectors (R, D).
        cache: of `new_cache`; earlier scales are in it.
        """
        first = self.firsts[scale]
        of_blocks = condition
        if self.config.shared_norm:
            of_blocks = self.shared_ada_lin(condition).view(-1, 1, 6, x.shape[-1])
        for block, layer in zip(self.blocks, cache, strict=True):
            x = block(x, of_blocks, layer, first)
        logits: torch.Tensor = self.head(self.head_nm(x, condition))
        return logits.float()

    def _positions(self, scale: int) -> torch.Tensor:
        """Position and level embeddings of a scale's tokens: (1, n, D)."""
        here = slice(self.firsts[scale], self.firsts[scale + 1])
        return self.pos_1LC[:, here] + self.lvl_embed.weight[scale]
