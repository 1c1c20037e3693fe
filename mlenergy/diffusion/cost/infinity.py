"""Parameters, FLOPs and activations of Infinity by formula.

A linear layer of a × b values takes 2ab FLOPs a token, attention 4D a pair of a query and a key (D features
of all heads together), a convolution 2 k² values in × out a cell. What torch counts as no FLOPs (norms,
activations, resizing, sampling) is none here. Text is padded to one length, and its padding is computed:
masked pairs are pairs. tests/cost/test_infinity_costs.py compares all of them with the modules.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlenergy.diffusion.cost.scale_costs import ScaleCosts, ScaleRequest
from mlenergy.diffusion.models.infinity import DecoderConfig, InfinityConfig, TextConfig
from mlenergy.diffusion.models.next_scale import tokens_of

_KERNEL = 9  # cells of a 3 x 3 convolution
_FLOAT32 = 4
_LEVELS = 15  # rows of the table of scales
_BUCKETS = 32  # of a T5's relative positions
_RESIDUAL_BLOCKS = 3  # a level of the decoder
# Tensors that live at once where they are most, as torch makes them on the meta device. A decoder's first
# block of a level: its input, the norm and the activation; a later one: the convolution and the sum, too.
_FIRST_BLOCK, _LATER_BLOCK = 3, 5
_STREAM, _IN_DTYPE = (
    3,
    6,
)  # of a transformer's block, beside the hidden features: in float32, in the run's dtype
_TEXT_SCORES, _TEXT_FEATURES = 3, 6  # of a T5's layer: matrices of all heads, and features


def infinity_costs(config: InfinityConfig, request: ScaleRequest) -> ScaleCosts:
    """Costs of one image."""
    assert request.text_tokens is not None
    height, width = request.schedule[-1]
    cells = height * width * config.patch**2
    return ScaleCosts(
        parameters={
            "text_encoder": _text_parameters(config.text),
            "transformer": _transformer_parameters(config),
            "vae": _decoder_parameters(config.vae),
        },
        condition_flops=request.texts * _text_flops(config.text, request.text_tokens),
        scale_flops=tuple(_scale_flops(config, request, request.text_tokens)),
        decode_flops=float(
            sum(
                2 * kernel * inputs * outputs * at
                for kernel, inputs, outputs, at in _layers(config.vae, cells)
            )
        ),
        activation_bytes={
            "text_encode": _text_bytes(config.text, request, request.text_tokens),
            "denoise": _scale_bytes(config, request, request.text_tokens),
            "vae_decode": _decode_bytes(config.vae, cells, request.itemsize),
        },
    )


def _transformer_parameters(config: InfinityConfig) -> int:
    d, text, hidden = config.width, config.text.width, config.mlp_ratio * config.width
    self_attention = 3 * d * d + 2 * d + config.heads + d * (d + 1)
    cross_attention = d * (d + 1) + 2 * d * d + d + d * (d + 1) + 2 * d  # with its norm
    feed_forward = hidden * (d + 1) + d * (hidden + 1)
    blocks = config.depth * (self_attention + cross_attention + feed_forward + 6 * d)
    pool = d + 2 * d * text + d + d * (d + 1)
    of_text = text + pool + d * (text + 1) + d * (d + 1) + config.text_tokens * text
    ends = d + _LEVELS * d + d * (config.bits + 1) + 2 * config.bits * (d + 1)
    return blocks + of_text + ends + (6 + 2) * d * (d + 1)


def _scale_flops(config: InfinityConfig, request: ScaleRequest, text_tokens: int) -> Iterator[float]:
    """Of each scale: blocks and head for every row, the image's embedding; the first reads the text, too."""
    d, known = config.width, 0
    matrices = config.depth * (6 + 2 * config.mlp_ratio) * d * d  # self-, cross-attention without its keys
    for scale, (rows, columns) in enumerate(request.schedule):
        tokens = rows * columns
        known += tokens
        attention = 4 * config.depth * d * tokens * (known + text_tokens)
        head = 2 * tokens * d * 2 * config.bits + 2 * d * 2 * d  # the norm's part once a row
        reading = 0 if scale else _reading_flops(config, text_tokens)
        embedding = 2 * tokens * d * config.bits if scale else 0  # of the image, whatever its rows
        yield float(request.rows * (2 * matrices * tokens + attention + head + reading) + embedding)


def _reading_flops(config: InfinityConfig, text_tokens: int) -> int:
    """Of one row's text: keys and values of the pool and all blocks, its projection, the adaptive norms."""
    d, text = config.width, config.text.width
    a_token = 2 * d * text + d * text + d * d + config.depth * 2 * d * d
    return 2 * text_tokens * a_token + 4 * d * text_tokens + 2 * d * d + 2 * 6 * d * d


def _scale_bytes(config: InfinityConfig, request: ScaleRequest, text_tokens: int) -> float:
    """Keys and values of all scales and of the text, and the last scale's feed-forward layer."""
    d, item, rows = config.width, request.itemsize, request.rows
    tokens = request.schedule[-1][0] * request.schedule[-1][1]
    cache = 2 * config.depth * rows * (tokens_of(request.schedule) + text_tokens) * d * item
    of_block = _STREAM * _FLOAT32 + (_IN_DTYPE + 2 * config.mlp_ratio) * item
    return float(cache + rows * tokens * d * of_block)


def _text_parameters(text: TextConfig) -> int:
    inner = text.heads * text.head_dim
    layer = 4 * text.width * inner + 3 * text.width * text.hidden + 2 * text.width
    return text.vocabulary * text.width + text.layers * layer + text.width + _BUCKETS * text.heads


def _text_flops(text: TextConfig, tokens: int) -> float:
    inner = text.heads * text.head_dim
    matrices = 4 * text.width * inner + 3 * text.width * text.hidden
    return float(text.layers * (2 * matrices * tokens + 4 * inner * tokens * tokens))


def _text_bytes(text: TextConfig, request: ScaleRequest, tokens: int) -> float:
    """Of its attention: a bias by position for every head makes whole matrices of tokens by tokens."""
    scores = (_TEXT_SCORES * text.heads + 1) * tokens * tokens
    return float(request.texts * (scores + _TEXT_FEATURES * tokens * text.width) * request.itemsize)


def _decoder_parameters(vae: DecoderConfig) -> int:
    values = sum(kernel * inputs * outputs + outputs for kernel, inputs, outputs, _ in _layers(vae, 1))
    return values + sum(2 * channels for channels in _norms(vae))


def _decode_bytes(vae: DecoderConfig, cells: int, itemsize: int) -> float:
    lowest = len(vae.channels) - 1
    channels = [
        max(_FIRST_BLOCK * vae.channels[min(level + 1, lowest)], _LATER_BLOCK * outputs)
        for level, outputs in enumerate(vae.channels)
    ]
    values = [wide * cells * 4 ** (lowest - level) for level, wide in enumerate(channels)]
    return float(max(values) * itemsize)


def _layers(vae: DecoderConfig, cells: int) -> Iterator[tuple[int, int, int, int]]:
    """Cells of the kernel, channels in and out, and cells of the map, of each convolution."""
    lowest = len(vae.channels) - 1
    wide = vae.channels[lowest]
    yield _KERNEL, vae.code_bits, wide, cells
    yield from [(_KERNEL, wide, wide, cells)] * 4  # two residual blocks
    for level in reversed(range(len(vae.channels))):
        at = cells * 4 ** (lowest - level)
        inputs, outputs = vae.channels[min(level + 1, lowest)], vae.channels[level]
        for block in range(_RESIDUAL_BLOCKS):
            first = outputs if block else inputs
            yield _KERNEL, first, outputs, at
            yield _KERNEL, outputs, outputs, at
            if first != outputs:
                yield 1, first, outputs, at
        if level > 0:
            yield _KERNEL, outputs, outputs, 4 * at
    yield _KERNEL, vae.channels[0], 3, cells * 4**lowest


def _norms(vae: DecoderConfig) -> Iterator[int]:
    """Channels of each group norm."""
    lowest = len(vae.channels) - 1
    yield from [vae.channels[lowest]] * 4
    for level, outputs in enumerate(vae.channels):
        yield vae.channels[min(level + 1, lowest)]
        yield from [outputs] * (2 * _RESIDUAL_BLOCKS - 1)
    yield vae.channels[0]
