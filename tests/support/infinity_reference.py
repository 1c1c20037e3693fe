"""Infinity in plain arithmetic: one prompt without padding, no cached keys, all scales computed anew.

It reads tensors by their published names and shares no code with the engine: softmax written out, rotations
as complex numbers, a mask of which scale sees which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]
Scale = tuple[int, int]


class Reference:
    """The transformer of one checkpoint.

    tensors: by published names. heads, pool_heads: of its attention. grid: rows and columns of the largest
    size of the image's shape.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], heads: int, pool_heads: int, grid: Scale) -> None:
        self.tensors = {name: value.double().numpy() for name, value in tensors.items()}
        self.heads, self.pool_heads, self.grid = heads, pool_heads, grid
        self.blocks = sorted(
            {name.split(".sa.")[0] for name in tensors if ".sa." in name},
            key=lambda name: [int(part) for part in name.split(".") if part.isdigit()],
        )

    def logits(self, text: Array, codes: Sequence[Array], scales: Sequence[Scale]) -> Array:
        """Logits (tokens of the given scales, 2 × bits) of one row.

        text: (length, channels); codes: input (tokens, bits) of every scale but the first.
        """
        text = text / np.sqrt((text**2).mean(-1, keepdims=True) + 1e-6) * self.tensors["text_norm.weight"]
        pooled = self._pool(text)
        modulation = self._linear("shared_ada_lin.1", _silu(pooled)).reshape(6, -1)
        hidden = self._linear("text_proj_for_ca.2", _gelu(self._linear("text_proj_for_ca.0", text)))
        first = pooled[None] + self.tensors["pos_start"][0]
        inputs = [first, *(self._linear("word_embed", part) for part in codes)]
        level = np.repeat(np.arange(len(scales)), [rows * columns for rows, columns in scales])
        x = np.concatenate(inputs) + self.tensors["lvl_embed.weight"][level]
        sees = level[:, None] >= level[None]
        turns = self._turns(scales, x.shape[-1] // self.heads)
        for block in self.blocks:
            x = self._block(block, x, modulation, hidden, sees, turns)
        scale, shift = self._linear("head_nm.ada_lin.1", _silu(pooled)).reshape(2, -1)
        return self._linear("head", _norm(x) * (1 + scale) + shift)

    def _block(
        self, name: str, x: Array, shared: Array, text: Array, sees: Array, turns: npt.NDArray[np.complex128]
    ) -> Array:
        get = self.tensors
        gate_1, gate_2, scale_1, scale_2, shift_1, shift_2 = get[f"{name}.ada_gss"][0, 0] + shared
        # Self-attention: biases of queries and values, unit vectors, rotation, one factor a head.
        width = x.shape[-1]
        bias = np.concatenate([get[f"{name}.sa.q_bias"], np.zeros(width), get[f"{name}.sa.v_bias"]])
        qkv = (_norm(x) * (1 + scale_1) + shift_1) @ get[f"{name}.sa.mat_qkv.weight"].T + bias
        q, k, v = (self._split(part, self.heads) for part in np.split(qkv, 3, axis=-1))
        q, k = (part / np.linalg.norm(part, axis=-1, keepdims=True) for part in (q, k))
        factor = np.exp(np.minimum(get[f"{name}.sa.scale_mul_1H11"][0], math.log(100)))
        scores = (_turned(q, turns) * factor) @ _turned(k, turns).transpose(0, 2, 1)
        x = x + gate_1 * self._linear(f"{name}.sa.proj", _join(_softmax(np.where(sees, scores, -np.inf)) @ v))
        # Cross-attention to the text.
        normed = _norm(x) * get[f"{name}.ca_norm.weight"] + get[f"{name}.ca_norm.bias"]
        q = self._split(self._linear(f"{name}.ca.mat_q", normed), self.heads)
        k, v = self._text_parts(f"{name}.ca", text, self.heads)
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        x = x + self._linear(f"{name}.ca.proj", _join(_softmax(scores) @ v))
        inner = self._linear(f"{name}.ffn.fc1", _norm(x) * (1 + scale_2) + shift_2)
        return x + gate_2 * self._linear(f"{name}.ffn.fc2", _gelu(inner))

    def _pool(self, text: Array) -> Array:
        q = self.tensors["text_proj_for_sos.ca.mat_q"].transpose(1, 0, 2)
        k, v = self._text_parts("text_proj_for_sos.ca", text, self.pool_heads)
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        return self._linear("text_proj_for_sos.ca.proj", _join(_softmax(scores) @ v))[0]

    def _text_parts(self, name: str, text: Array, heads: int) -> tuple[Array, Array]:
        both = text @ self.tensors[f"{name}.mat_kv.weight"].T
        k, v = np.split(both, 2, axis=-1)
        return self._split(k, heads), self._split(v + self.tensors[f"{name}.v_bias"], heads)

    def _turns(self, scales: Sequence[Scale], channels: int) -> npt.NDArray[np.complex128]:
        """(tokens, channels / 2): the first half turns with the row, the second with the column."""
        quarter = channels // 4
        frequency = 10_000.0 ** (-np.arange(quarter) / quarter)
        angles = []
        for rows, columns in scales:
            for row in range(rows):
                for column in range(columns):
                    y, x = round(row * self.grid[0] / rows), round(column * self.grid[1] / columns)
                    angles.append(np.concatenate([y * frequency, x * frequency]))
        return np.exp(1j * np.array(angles))

    def _linear(self, name: str, x: Array) -> Array:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    @staticmethod
    def _split(x: Array, heads: int) -> Array:
        return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def _join(x: Array) -> Array:
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def _turned(x: Array, turns: npt.NDArray[np.complex128]) -> Array:
    turned = (x[..., ::2] + 1j * x[..., 1::2]) * turns
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def _norm(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def _softmax(x: Array) -> Array:
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
