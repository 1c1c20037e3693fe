"""The components of a pipeline that denoise: one, or two of which the second takes over at low noise."""

from __future__ import annotations

from typing import Any

from mlenergy.diffusion.models.spec import Family


def denoisers(pipeline: Any, family: Family) -> dict[str, Any]:
    """Name -> component, the one of high noise first; a second one only where the pipeline has it."""
    parts = {name: getattr(pipeline, name, None) for name in family.denoisers}
    return {name: part for name, part in parts.items() if part is not None}
