"""Parameters, FLOPs and activations of VAR by formula.

A linear layer of a × b values takes 2ab FLOPs a token, attention 4D a pair of a query and a key (D features
of all heads together), a convolution 2 k² values in × out a cell. What torch counts as no FLOPs (norms,
activations, sampling) is none here. tests/cost/test_next_scale.py compares all of them with the modules.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlenergy.diffusion.cost.scale_costs import ScaleCosts, ScaleRequest
from mlenergy.diffusion.models.next_scale import Schedule, tokens_of
from mlenergy.diffusion.models.var import VarConfig, VqVaeConfig

_KERNEL = 9  # cells of a 3 x 3 convolution
_FLOAT32, _INT64 = 4, 8
# Tensors of one size that live at once in a decoder's residual block, which the caller's input is one of.
_DECODER_TENSORS = 5


def var_costs(config: VarConfig, request: ScaleRequest) -> ScaleCosts:
    """Costs of one image."""
    height, width = request.schedule[-1]
    return ScaleCosts(
        parameters={
            "class_embedding": (config.classes + 1) * config.width,
            "transformer": _transformer_parameters(config),
            "vae": _vae_parameters(config.vae),
        },
        condition_flops=0.0,  # a table's rows
        scale_flops=tuple(_scale_flops(config, request)),
        decode_flops=_decode_flops(config.vae, height * width),
        activation_bytes={
            "text_encode": float(request.rows * config.width * request.itemsize),
            "denoise": _scale_bytes(config, request),
            "vae_decode": _decode_bytes(config.vae, height * width, request.itemsize),
        },
    )


def _transformer_parameters(config: VarConfig) -> int:
    d, hidden = config.width, config.mlp_ratio * config.width
    six = 6 * d * (d + 1)  # of an adaptive norm
    norms = six + config.depth * 6 * d if config.shared_norm else config.depth * six
    attention = 3 * d * d + 2 * d + config.heads + d * (d + 1)
    feed_forward = hidden * (d + 1) + d * (hidden + 1)
    positions = d * (1 + config.tokens + len(config.sides))
    ends = d * (config.vae.latent_channels + 1) + 2 * d * (d + 1) + config.vae.vocabulary * (d + 1)
    return config.depth * (attention + feed_forward) + norms + positions + ends


def _scale_flops(config: VarConfig, request: ScaleRequest) -> Iterator[float]:
    """Of each scale: blocks and head for every row, and once an image its tokens' way to the next input."""
    d, vae, known = config.width, config.vae, 0
    matrices = config.depth * (4 + 2 * config.mlp_ratio) * d * d + d * vae.vocabulary
    norms = (6 * (1 if config.shared_norm else config.depth) + 2) * d * d  # once a row, whatever its tokens
    cells = request.schedule[-1][0] * request.schedule[-1][1]
    residual = 2 * _KERNEL * vae.latent_channels**2 * cells
    for scale, (rows, columns) in enumerate(request.schedule):
        tokens = rows * columns
        known += tokens
        attention = 4 * config.depth * d * tokens * known
        following = request.schedule[scale + 1] if scale + 1 < len(request.schedule) else (0, 0)
        embedding = 2 * vae.latent_channels * d * following[0] * following[1]
        yield float(request.rows * (2 * matrices * tokens + attention + 2 * norms) + embedding + residual)


def _scale_bytes(config: VarConfig, request: ScaleRequest) -> float:
    """The cache of all scales, and the larger of the last scale's feed-forward layer and its draw."""
    d, item, schedule = config.width, request.itemsize, request.schedule
    tokens = schedule[-1][0] * schedule[-1][1]
    cache = 2 * config.depth * request.rows * tokens_of(schedule) * d * item
    feed_forward = request.rows * tokens * d * (2 + 2 * config.mlp_ratio) * item
    return float(cache + max(feed_forward, draw_bytes(request, config.vae.vocabulary)))


def draw_bytes(request: ScaleRequest, vocabulary: int, draws: int = 1) -> float:
    """Largest tensors of the draw at the last scale: logits, their order, what of them is kept."""
    places = request.schedule[-1][0] * request.schedule[-1][1] * draws
    guiding = (request.rows + 1) * vocabulary * _FLOAT32
    kept = 3 * min(request.top_k, vocabulary) * _FLOAT32
    return float(places * max(guiding, vocabulary * (2 * _FLOAT32 + _INT64) + kept))


def _vae_parameters(vae: VqVaeConfig) -> int:
    """Of the quantizer, the convolution after it, and the decoder."""
    c = vae.latent_channels
    codebook = vae.vocabulary * c
    convolutions = (vae.residual_convolutions + 1) * (c * c * _KERNEL + c)
    layers = [*_decoder_layers(vae, 1)]
    values = sum(kernel * inputs * outputs + outputs for kernel, inputs, outputs, _ in layers)
    return codebook + convolutions + values + sum(2 * channels for channels in _decoder_norms(vae))


def _decode_flops(vae: VqVaeConfig, cells: int) -> float:
    """Of the convolution after the quantizer and the decoder, for a latent map of this size in cells."""
    lowest = vae.channels * vae.multipliers[-1]
    attentions = vae.residual_blocks + 2  # after each block of the lowest level, and in the middle
    layers = sum(
        2 * kernel * inputs * outputs * at for kernel, inputs, outputs, at in _decoder_layers(vae, cells)
    )
    first = 2 * _KERNEL * vae.latent_channels**2 * cells
    return float(first + layers + attentions * 4 * lowest * cells * cells)


def _decode_bytes(vae: VqVaeConfig, cells: int, itemsize: int) -> float:
    sizes = [
        channels * cells * 4 ** (len(vae.multipliers) - 1 - level)
        for level, channels in enumerate(_widths(vae))
    ]
    return float(_DECODER_TENSORS * max(sizes) * itemsize)


def _widths(vae: VqVaeConfig) -> list[int]:
    return [vae.channels * multiplier for multiplier in vae.multipliers]


def _decoder_layers(vae: VqVaeConfig, cells: int) -> Iterator[tuple[int, int, int, int]]:
    """Cells of the kernel, channels in and out, and cells of the map, of each convolution of the decoder."""
    widths = _widths(vae)
    lowest = len(widths) - 1
    wide = widths[lowest]
    yield _KERNEL, vae.latent_channels, wide, cells
    for _ in range(2):  # the middle's residual blocks
        yield _KERNEL, wide, wide, cells
        yield _KERNEL, wide, wide, cells
    attentions = vae.residual_blocks + 2
    for _ in range(attentions):
        yield 1, wide, 3 * wide, cells
        yield 1, wide, wide, cells
    for level in reversed(range(len(widths))):
        at = cells * 4 ** (lowest - level)
        inputs, outputs = widths[min(level + 1, lowest)], widths[level]
        for block in range(vae.residual_blocks + 1):
            first = inputs if block == 0 else outputs
            yield _KERNEL, first, outputs, at
            yield _KERNEL, outputs, outputs, at
            if first != outputs:
                yield 1, first, outputs, at
        if level > 0:
            yield _KERNEL, outputs, outputs, 4 * at
    yield _KERNEL, widths[0], 3, cells * 4**lowest


def _decoder_norms(vae: VqVaeConfig) -> Iterator[int]:
    """Channels of each group norm of the decoder."""
    widths = _widths(vae)
    lowest = len(widths) - 1
    yield from [widths[lowest]] * 4  # the middle's blocks
    yield from [widths[lowest]] * (vae.residual_blocks + 2)  # attention
    for level, outputs in enumerate(widths):
        inputs = widths[min(level + 1, lowest)]
        for block in range(vae.residual_blocks + 1):
            yield inputs if block == 0 else outputs
            yield outputs
    yield widths[0]


def schedule_of(config: VarConfig) -> Schedule:
    """Rows and columns of the model's scales."""
    return tuple((side, side) for side in config.sides)
