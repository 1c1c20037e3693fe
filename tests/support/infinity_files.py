"""Checkpoints of a tiny Infinity in the layouts of the published files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mlenergy.diffusion.engines.autoregressive.infinity_model import InfinityModel

Tensors = dict[str, torch.Tensor]


def transformer_tensors(model: InfinityModel) -> Tensors:
    """By published names, with the buffers that the authors' files hold beside the weights."""
    tensors = {name: value.clone() for name, value in model.transformer.state_dict().items()}
    width = model.config.width
    for name in list(tensors):
        if name.endswith((".sa.v_bias", ".ca.v_bias")):
            tensors[name.replace("v_bias", "zero_k_bias")] = torch.zeros(width)
    return tensors | {"lvl_1L": torch.zeros(1, 9, dtype=torch.long)}


def vae_tensors(model: InfinityModel) -> Tensors:
    """By published names: levels count from the finest, and layers are wrapped once more."""
    levels = len(model.config.vae.channels)
    tensors = {}
    for name, value in model.vae.state_dict().items():
        parts = name.split(".")
        kind = parts[-1]
        if parts[1] == "up_blocks":
            at = f"decoder.up.{levels - 1 - int(parts[2])}"
            shortcut = "nin_shortcut" if parts[5] == "conv_shortcut" else parts[5]
            layer = f"{at}.upsample.conv" if parts[3] == "upsamplers" else f"{at}.block.{parts[4]}.{shortcut}"
        elif parts[1] == "mid_block":
            layer = f"decoder.mid.block_{int(parts[3]) + 1}.{parts[4]}"
        else:
            layer = {"conv_norm_out": "decoder.norm_out"}.get(parts[1], f"decoder.{parts[1]}")
        inner = "norm" if layer.rpartition(".")[2].startswith("norm") else "conv"
        tensors[f"{layer}.{inner}.{kind}"] = value.clone()
    training = {
        "encoder.conv_in.conv.weight": torch.zeros(8, 3, 3, 3),
        "quantizer.lfq.mask": torch.zeros(3, dtype=torch.long),
        "quantize.lfq.mask": torch.zeros(3, dtype=torch.long),
    }
    return tensors | training


def write(folder: Path, model: InfinityModel, shards: str | None = None) -> dict[str, Path]:
    """Component -> its file or folder, of a model with these weights.

    shards: None: one file for the transformer; "bin" or "safetensors": a folder of two, with an index.
    """
    tensors = transformer_tensors(model)
    path = folder / ("infinity_2b_reg.pth" if shards is None else "infinity_8b_weights")
    if shards is None:
        torch.save(tensors, path)
    else:
        _write_shards(path, tensors, shards)
    other: dict[str, Any] = {"image_disc": {"weight": torch.zeros(2)}, "step": 7}
    torch.save({"vae": vae_tensors(model), **other}, folder / "infinity_vae_d32reg.pth")
    text = folder / "flan-t5-xl"
    model.encode.encoder.save_pretrained(text)  # type: ignore[operator]
    model.encode.tokenizer.save_pretrained(text)
    return {"transformer": path, "vae": folder / "infinity_vae_d32reg.pth", "text_encoder": text}


def _write_shards(folder: Path, tensors: Tensors, kind: str) -> None:
    folder.mkdir()
    stem = "model" if kind == "safetensors" else "pytorch_model"
    where = {name: f"{stem}-0000{1 + index % 2}-of-00002.{kind}" for index, name in enumerate(tensors)}
    for file in set(where.values()):
        part = {name: tensors[name].contiguous() for name in tensors if where[name] == file}
        save_file(part, folder / file) if kind == "safetensors" else torch.save(part, folder / file)
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"weight_map": where}))
