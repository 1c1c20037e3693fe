"""Models that differ from their family's published ones: a known architecture with other values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlenergy.diffusion.models.architectures.reader import Architecture, architecture

Changes = Mapping[str, Mapping[str, Any] | None]  # component -> values of its configuration; None: left out

# A VAE of two blocks: one latent cell is of two by two pixels.
TWO_BLOCKS = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}


def changed(model_id: str, changes: Changes) -> Architecture:
    """The architecture of `model_id` with other values."""
    known = architecture(model_id)
    parts = {
        name: replace(part, config={**part.config, **(changes.get(name) or {})})
        for name, part in known.components.items()
        if name not in changes or changes[name] is not None
    }
    return replace(known, components=parts, costs={})


def write_configurations(folder: Path, model_id: str, changes: Changes) -> Path:
    """A pipeline's folder with its small JSON files alone: enough for a plan, and needs no torch."""
    model = changed(model_id, changes)
    index: dict[str, Any] = {"_class_name": model.pipeline_class, **model.options}
    index |= {name: [None, None] for name, values in changes.items() if values is None}
    for name, part in model.components.items():
        index[name] = part.class_path.split(".")
        (folder / name).mkdir(parents=True)
        file = "config.json" if part.is_module else "scheduler_config.json"
        (folder / name / file).write_text(json.dumps(dict(part.config)))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def save_pipeline(folder: Path, model_id: str, changes: Changes) -> Path:
    """A whole pipeline's folder, with random weights."""
    import torch

    from mlenergy.diffusion.weights.random.pipeline import build_random_pipeline

    build_random_pipeline(changed(model_id, changes), "cpu", torch.float32).save_pretrained(folder)
    return folder
