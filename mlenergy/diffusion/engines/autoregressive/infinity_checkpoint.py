"""Infinity's published files: names of their tensors, and reading them strictly.

Layouts as the authors' repository (FoundationVision/Infinity, read in November 2026) writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from mlenergy.diffusion.engines.autoregressive.files import State, load_strictly, read_state
from mlenergy.diffusion.engines.autoregressive.infinity_transformer import InfinityTransformer
from mlenergy.diffusion.engines.autoregressive.infinity_vae import PER_LEVEL, InfinityVae
from mlenergy.diffusion.errors import UserError

# Of training alone: masks and levels of all scales together, and the bias of zeros that keys have.
_TRANSFORMER_BUFFERS = (
    "lvl_1L",
    "attn_bias_for_masking",
    "Infinity_visible_kvlen",
    "Infinity_invisible_qlen",
    r".*\.zero_k_bias",
)
# The encoder, and constants of the quantiser under both names that the authors' class gives it.
_VAE_TRAINING = (r"encoder\..*", r"quantizer?\.lfq\.(mask|zero)")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")

# Layers of a residual block, published and here; the last one is there where the number of channels changes.
_RESIDUAL = (
    *((name, name) for name in ("norm1", "conv1", "norm2", "conv2")),
    ("nin_shortcut", "conv_shortcut"),
)


def load_transformer(
    transformer: InfinityTransformer, path: Path, device: torch.device, dtype: torch.dtype
) -> None:
    """Fill a module of the meta device from `infinity_2b_reg.pth`, or the shards in `infinity_8b_weights`.

    Raises:
        UserError: a file is missing or cannot be read; keys are missing, unknown or of another shape.
    """
    state = _read_shards(path) if path.is_dir() else read_state(path)
    load_strictly(transformer, state, path, device=device, dtype=dtype, not_loaded=_TRANSFORMER_BUFFERS)


def load_vae(vae: InfinityVae, path: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Fill a module of the meta device from `infinity_vae_d32reg.pth`, or another of its kind.

    Raises:
        UserError: as `load_transformer`.
    """
    names = dict(_names_here(len(vae.decoder.up_blocks)))
    state = {names.get(name, name): tensor for name, tensor in read_state(path, part="vae").items()}
    load_strictly(vae, state, path, device=device, dtype=dtype, not_loaded=_VAE_TRAINING)


def _names_here(levels: int) -> Iterator[tuple[str, str]]:
    """Every published name of the decoder, and the name here.

    The authors' classes wrap convolutions and norms, so that names end in `conv1.conv.weight`; files in the
    layout of FLUX, `conv1.weight`, are loaded by them as well.
    """
    for published, here in _layers(levels):
        inner = "norm" if "norm" in published.rpartition(".")[2] else "conv"
        for kind in ("weight", "bias"):
            yield f"{published}.{kind}", f"{here}.{kind}"
            yield f"{published}.{inner}.{kind}", f"{here}.{kind}"


def _layers(levels: int) -> Iterator[tuple[str, str]]:
    yield "decoder.conv_in", "decoder.conv_in"
    for block in (0, 1):
        for published, here in _RESIDUAL:
            yield f"decoder.mid.block_{block + 1}.{published}", f"decoder.mid_block.resnets.{block}.{here}"
    for level in range(levels):
        up = f"decoder.up_blocks.{levels - 1 - level}"  # published levels count from the finest
        for block in range(PER_LEVEL):
            for published, here in _RESIDUAL:
                yield f"decoder.up.{level}.block.{block}.{published}", f"{up}.resnets.{block}.{here}"
        yield f"decoder.up.{level}.upsample.conv", f"{up}.upsamplers.0.conv"
    yield "decoder.norm_out", "decoder.conv_norm_out"
    yield "decoder.conv_out", "decoder.conv_out"


def _read_shards(folder: Path) -> State:
    """Tensors of all files that the folder's index names.

    Raises:
        UserError: the folder has no index, or a file of it is missing or cannot be read.
    """
    index = next((folder / name for name in _INDEXES if (folder / name).is_file()), None)
    if index is None:
        raise UserError(f"{folder} holds none of {', '.join(_INDEXES)}; download the whole folder again")
    state: dict[str, torch.Tensor] = {}
    for file in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())):
        path = folder / file
        if not path.is_file():
            raise UserError(f"{folder} lacks {file}; download the whole folder again")
        state |= load_file(path) if path.suffix == ".safetensors" else read_state(path)
    return state
