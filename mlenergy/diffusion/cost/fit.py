"""Counts fitted by polynomials: the costs of one architecture at any size, so that planning needs no torch.

FLOPs of these models are exactly a polynomial of second degree in the latent cells of the
image and the tokens of the text (attention is the square, all else is linear), and the peak of
activations is linear in both. So a few counts give all sizes; tests compare others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import torch

from mlenergy.diffusion.cost.count import Counter
from mlenergy.diffusion.cost.inputs import LatentSize, text_tokens
from mlenergy.diffusion.models.architectures.reader import Architecture, Component
from mlenergy.diffusion.models.families import FAMILIES

Terms = Sequence[str]
_SIDES = (32, 64, 96)  # latent cells a side: 256, 512 and 768 pixels where a cell is of 8
_VIDEO_SIDES = (16, 24, 32)
_FRAMES = (3, 4, 6)  # latent frames; the first two of a causal decoder differ from all others
# Decoders that make videos in parts: odd numbers of latent frames alone give all frames (CogVideoX), and
# parts of three (HunyuanVideo; of other numbers the last part is shorter).
_DECODED_FRAMES = {"AutoencoderKLCogVideoX": (3, 5, 7), "AutoencoderKLHunyuanVideo": (6, 9, 12)}
_TEXTS = (64, 128, 256)
_DTYPES = {"2": torch.bfloat16, "4": torch.float32}
# Of a decoder of videos these grow with the calls of its layers alone, a few for each latent frame.
_OF_CALLS = ("matmul_flops_a_row", "kernels")
_BLOCK_LISTS = ("transformer_blocks", "single_transformer_blocks", "blocks", "layers")


def count_costs(architecture: Architecture) -> dict[str, Any]:
    """Parameters, FLOPs and activation bytes of every component, as the architecture files keep them.

    Returns:
        component name -> parameters, buffers (floating elements), block_parameters (in the repeated
        blocks), float32_parameters (kept in float32 where the run's dtype is float16), flops,
        activation_bytes and kernels (by the names of `KernelWork`, in bfloat16): term -> factor, for
        one row of the batch. Terms: "1", "cells" (latent height × width), "text" (tokens), their
        squares and "cells*text"; of decoders of videos also "frame" (cells of one latent frame), and
        "frames" (latent frames) of what is the same for a frame of any size.

    Raises:
        UserError: a component of a class that cannot be counted.
    """
    counter = Counter(architecture)
    components = {
        name: _sizes(counter, part) | _costs(counter, part) for name, part in architecture.modules.items()
    }
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    return {"counted_with": libraries, "components": components}


def _sizes(counter: Counter, part: Component) -> dict[str, int]:
    module = counter.module(part.name)
    names = dict(module.named_parameters())
    kept = tuple(getattr(module, "_keep_in_fp32_modules", None) or ())
    return {
        "parameters": sum(p.numel() for p in names.values()),
        "buffers": sum(b.numel() for b in module.buffers() if b.is_floating_point()),
        "block_parameters": sum(p.numel() for n, p in names.items() if n.split(".")[0] in _BLOCK_LISTS),
        "float32_parameters": sum(
            p.numel() for n, p in names.items() if any(word in n.split(".") for word in kept)
        ),
    }


def _costs(counter: Counter, part: Component) -> dict[str, Any]:
    if part.name in FAMILIES[counter.architecture.pipeline_class].denoisers:
        return _denoiser_costs(counter)
    if part.name.startswith("text_encoder"):
        return _text_costs(counter, part)
    return _decoder_costs(counter)


@dataclass(frozen=True)
class _Point:
    """A size to count at."""

    cells: LatentSize
    text: int = 0


def _denoiser_costs(counter: Counter) -> dict[str, Any]:
    architecture = counter.architecture
    free = _text_is_free(architecture)
    texts = _TEXTS if free else (_fixed_t5(architecture),)
    sizes = _sizes_of(architecture, several_frames=False)
    points = [_Point(size, text) for size in sizes for text in texts]
    quadratic: Terms = (
        ("1", "cells", "cells2", "text", "text2", "cells*text") if free else ("1", "cells", "cells2")
    )
    linear: Terms = ("1", "cells", "text") if free else ("1", "cells")

    def peak(dtype: torch.dtype) -> Callable[[_Point], int]:
        return lambda at: counter.denoiser_bytes(1, at.cells, at.text, dtype)

    # The peak's line holds from where activations outgrow the few tensors of fixed size.
    large = [point for point in points if point.cells != sizes[0]]
    # The six points that settle a polynomial of second degree in two variables.
    few = [point for point in points if sizes.index(point.cells) + texts.index(point.text) < 3]
    return {
        "flops": _fit(points, quadratic, lambda at: counter.denoiser(1, at.cells, at.text)),
        "activation_bytes": {size: _fit(large, linear, peak(dtype)) for size, dtype in _DTYPES.items()},
        "kernels": _fit_kernels(
            few if free else points, quadratic, lambda at: counter.denoiser_kernels(1, at.cells, at.text)
        ),
    }


def _text_costs(counter: Counter, part: Component) -> dict[str, Any]:
    free = text_tokens(counter.architecture, part, _TEXTS[0]) == _TEXTS[0]
    texts = _TEXTS if free else (text_tokens(counter.architecture, part, None),)
    points = [_Point(LatentSize(0, 0), text) for text in texts]
    terms: Terms = ("1", "text", "text2") if free else ("1",)
    return {
        "flops": _fit(points, terms, lambda at: counter.text(part, 1, at.text)),
        "activation_bytes": {
            size: _fit(points, terms, _text_peak(counter, part, dtype)) for size, dtype in _DTYPES.items()
        },
        "kernels": _fit_kernels(points, terms, lambda at: counter.text_kernels(part, 1, at.text)),
    }


def _text_peak(counter: Counter, part: Component, dtype: torch.dtype) -> Callable[[_Point], int]:
    return lambda at: counter.text_bytes(part, 1, at.text, dtype)


def _decoder_costs(counter: Counter) -> dict[str, Any]:
    """Of videos also by the cells of a frame: causal decoders make the first frame apart, each by itself."""
    videos = FAMILIES[counter.architecture.pipeline_class].makes_video
    points = [_Point(size) for size in _sizes_of(counter.architecture, several_frames=videos)]
    quadratic: Terms = ("1", "cells", "cells2")
    linear: Terms = ("1", "cells")
    if videos:
        quadratic, linear = (*quadratic, "frame", "frame2", "cells*frame"), (*linear, "frame")
    large = points if videos else points[1:]
    of_calls = dict.fromkeys(_OF_CALLS, ("1", "frames")) if videos else {}
    return {
        "flops": _fit(points, quadratic, lambda at: counter.decode(1, at.cells)),
        "activation_bytes": {
            size: _fit(large, linear, _decode_peak(counter, dtype)) for size, dtype in _DTYPES.items()
        },
        "kernels": _fit_kernels(points, quadratic, lambda at: counter.decode_kernels(1, at.cells), of_calls),
    }


def _decode_peak(counter: Counter, dtype: torch.dtype) -> Callable[[_Point], int]:
    return lambda at: counter.decode_bytes(1, at.cells, dtype)


def _sizes_of(architecture: Architecture, *, several_frames: bool) -> list[LatentSize]:
    """Sizes to count at; of a video's denoiser in one number of frames: its tokens are one sequence."""
    if not FAMILIES[architecture.pipeline_class].makes_video:
        return [LatentSize(side, side) for side in _SIDES]
    vae = architecture.components["vae"].class_name
    frames = _DECODED_FRAMES.get(vae, _FRAMES) if several_frames else _FRAMES[1:2]
    return [LatentSize(side, side, count) for count in frames for side in _VIDEO_SIDES]


def _text_is_free(architecture: Architecture) -> bool:
    """True where the denoiser takes text of any length (UNets take CLIP's, HunyuanDiT 77 and 256)."""
    return FAMILIES[architecture.pipeline_class].takes_text_length and not _fixed_t5(architecture)


def _fixed_t5(architecture: Architecture) -> int:
    config = architecture.denoiser.config
    # CogVideoX's table of positions begins with those of its text.
    is_table = not config.get("use_rotary_positional_embeddings", True)
    return int(config.get("max_text_seq_length", 0) if is_table else config.get("text_len_t5", 0))


def _fit_kernels(
    points: Sequence[_Point],
    terms: Terms,
    count: Callable[[_Point], dict[str, float]],
    other_terms: Mapping[str, Terms] = MappingProxyType({}),
) -> dict[str, dict[str, float]]:
    """A polynomial for each kind of work, in `other_terms` if named there; factors of 0 are left out."""
    counts = {point: count(point) for point in points}

    def of(name: str) -> Callable[[_Point], float]:
        return lambda at: counts[at][name]

    fits = {name: _fit(points, other_terms.get(name, terms), of(name)) for name in counts[points[0]]}
    return {name: {term: factor for term, factor in fit.items() if factor} for name, fit in fits.items()}


def _fit(points: Sequence[_Point], terms: Terms, measure: Callable[[_Point], float]) -> dict[str, float]:
    """Least squares in scaled variables, so that the squares do not swamp the constant."""
    largest = float(max(point.cells.cells for point in points)), float(max(p.cells.frame for p in points))
    scales = _values(largest[0] or 1.0, float(_TEXTS[-1]), largest[1] or 1.0, terms)
    rows = [
        [value / scale for value, scale in zip(_values_at(point, terms), scales, strict=True)]
        for point in points
    ]
    counts = [[float(measure(point))] for point in points]
    matrix, right = torch.tensor(rows, dtype=torch.float64), torch.tensor(counts, dtype=torch.float64)
    solution = torch.linalg.lstsq(matrix, right).solution.flatten().tolist()
    return {
        term: _rounded(factor / scale) for term, factor, scale in zip(terms, solution, scales, strict=True)
    }


def _values_at(point: _Point, terms: Terms) -> list[float]:
    return _values(point.cells.cells, point.text, point.cells.frame, terms)


def _values(cells: float, text: float, frame: float, terms: Terms) -> list[float]:
    named = {
        "1": 1.0,
        "cells": cells,
        "cells2": cells * cells,
        "text": text,
        "text2": text * text,
        "cells*text": cells * text,
        "frame": frame,
        "frame2": frame * frame,
        "cells*frame": cells * frame,
        "frames": cells / frame if frame else 0.0,
    }
    return [named[term] for term in terms]


def _rounded(value: float) -> float:
    """To a thousandth of a FLOP or byte: what is left of the solver's rounding goes."""
    return round(value, 3) + 0.0  # + 0.0 makes a negative zero plain
