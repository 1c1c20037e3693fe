"""Weights stored in fewer bits: torchao's quantisation, and float8 storage layer by layer."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from diffusers.hooks import apply_layerwise_casting
from torch.distributed.tensor import DTensor

from mlenergy.diffusion.config.optimizations import Quantization
from mlenergy.diffusion.engines.optimizations.blocks import computing_blocks
from mlenergy.diffusion.errors import UserError

_STORAGE = torch.float8_e4m3fn
# T5 looks at the dtype of `wo` itself and shares its embedding between places.
_T5_KEPT = ("shared", "embed", "layer_norm", "wo")


def quantize(denoiser: Any, kind: Quantization) -> dict[str, Any]:
    """Quantise the linear layers of the denoiser's blocks by torchao; returns bytes before and after.

    Embeddings, norms and the last projection stay: they are a small part of the weights and of the
    work, and a large part of the error.
    """
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Float8WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    configs = {
        "int8-weight-only": Int8WeightOnlyConfig,
        "int8-dynamic": Int8DynamicActivationInt8WeightConfig,
        "fp8-weight-only": Float8WeightOnlyConfig,
        "fp8-dynamic": Float8DynamicActivationFloat8WeightConfig,
    }
    before = weight_bytes(denoiser)
    try:
        for block in computing_blocks(denoiser):
            quantize_(block, configs[kind]())
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"--quantization {kind} cannot be used here: {reason}") from error
    return _record(denoiser, before)


def store_denoiser_in_fp8(denoiser: Any, compute_dtype: torch.dtype) -> dict[str, Any]:
    """Keep the denoiser's weights in float8 and cast each layer's while it runs.

    What diffusers' authors leave out stays as it is: embeddings of positions, norms, and the projections
    that scale and shift by the time step (FLUX, SD3 and HunyuanDiT have them in the norms; PixArt's, which
    are not, its list names too: `_skip_layerwise_casting_patterns` of each model, diffusers 0.42.1). They
    act on whole blocks, so that their rounding would shift every channel; in FLUX.1-dev they are 27 % of
    the weights.
    """
    before = weight_bytes(denoiser)
    denoiser.enable_layerwise_casting(storage_dtype=_STORAGE, compute_dtype=compute_dtype)
    return _record(denoiser, before)


def t5_of(pipeline: Any) -> tuple[str, Any]:
    """Name and module of the pipeline's T5 text encoder.

    Raises:
        UserError: it has none.
    """
    for name, part in pipeline.components.items():
        if name.startswith("text_encoder") and "T5" in type(part).__name__:
            return name, part
    raise UserError("--use_fp8_t5_encoder: this pipeline has no T5 text encoder; leave it out")


def store_t5_in_fp8(encoder: Any, compute_dtype: torch.dtype) -> dict[str, Any]:
    """Keep the encoder's large matrices in float8 and cast each while it runs."""
    before = weight_bytes(encoder)
    apply_layerwise_casting(
        encoder, storage_dtype=_STORAGE, compute_dtype=compute_dtype, skip_modules_pattern=_T5_KEPT
    )
    return _record(encoder, before)


def weight_bytes(module: torch.nn.Module) -> dict[str, int]:
    """Dtype -> bytes of a module's parameters as they are stored; shared ones count once."""
    found: Counter[str] = Counter()
    for parameter in module.parameters():
        for part in _stored(parameter):
            found[str(part.dtype).removeprefix("torch.")] += part.nbytes
    return dict(found)


def stored_weights(pipeline: Any) -> dict[str, dict[str, int]]:
    """Component -> dtype -> bytes of its parameters, as this rank stores them."""
    parts = pipeline.components.items()
    return {name: weight_bytes(part) for name, part in parts if isinstance(part, torch.nn.Module)}


def _stored(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that a tensor is stored as: a quantised one holds several."""
    if isinstance(tensor, DTensor):
        return _stored(tensor.to_local())  # this rank's shard
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return [tensor]
    return [part for name in flatten()[0] for part in _stored(getattr(tensor, name))]


def _record(module: torch.nn.Module, before: dict[str, int]) -> dict[str, Any]:
    after = weight_bytes(module)
    return {
        "bytes_before": sum(before.values()),
        "bytes": sum(after.values()),
        "bytes_by_dtype": after,
    }
