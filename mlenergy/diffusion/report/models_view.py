"""`mlenergy models`: the listed models as a table or as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from mlenergy.diffusion.models.listed import LISTED, TINY
from mlenergy.diffusion.models.spec import ModelSpec


def models_as_dicts() -> list[dict[str, Any]]:
    """One dictionary a listed model, in listing order; unknown counts are None."""
    return [_as_dict(spec) for spec in LISTED + TINY]


def print_models(*, as_json: bool) -> None:
    """Print all listed models on stdout."""
    if as_json:
        print(json.dumps(models_as_dicts(), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="Models (any other hub id or local folder of these families works too)", title_justify="left"
    )
    for heading in (
        "model",
        "family",
        "parameters",
        "size",
        "steps",
        "guidance",
        "dtype",
        "text",
        "parallel modes",
    ):
        table.add_column(heading, overflow="fold")
    for spec in LISTED + TINY:
        table.add_row(*_cells(spec))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _cells(spec: ModelSpec) -> list[str]:
    return [
        spec.model_id,
        spec.family.name,
        f"{spec.parameters / 1e9:.2f} B" if spec.parameters else "-",
        _size(spec),
        str(spec.default_steps),
        "none" if spec.default_guidance_scale is None else f"{spec.default_guidance_scale:g}",
        spec.default_dtype,
        "class-conditional"
        if spec.family.condition == "class"
        else "fixed"
        if spec.default_max_sequence_length is None
        else str(spec.default_max_sequence_length),
        "\n".join(f"{engine}: {', '.join(modes) or 'one process'}" for engine, modes in _modes(spec).items()),
    ]


def _size(spec: ModelSpec) -> str:
    size = f"{spec.default_width_px}x{spec.default_height_px}"
    if spec.default_num_frames is None:
        return size
    return f"{size}\n{spec.default_num_frames} frames, {spec.default_fps} fps"


def _as_dict(spec: ModelSpec) -> dict[str, Any]:
    return {
        "model_id": spec.model_id,
        "family": spec.family.name,
        "pipeline_class": spec.family.pipeline_class,
        "parameters": spec.parameters,
        "output": spec.family.output,
        "height_px": spec.default_height_px,
        "width_px": spec.default_width_px,
        "num_frames": spec.default_num_frames,
        "fps": spec.default_fps,
        "inference_steps": spec.default_steps,
        "guidance": spec.guidance,
        "condition": spec.family.condition,
        "guidance_scale": spec.default_guidance_scale,
        "dtype": spec.default_dtype,
        "max_sequence_length": spec.default_max_sequence_length,
        "attention_heads": spec.heads,
        "gated": spec.gated,
        "parallel_modes": _modes(spec),
        "source": spec.source,
    }


def _modes(spec: ModelSpec) -> dict[str, list[str]]:
    return {engine: sorted(modes) for engine, modes in spec.family.modes.items()}
