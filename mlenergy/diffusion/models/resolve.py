"""A model id or a folder -> its ModelSpec, never by substrings of its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.families import FAMILIES
from mlenergy.diffusion.models.hub import read_model
from mlenergy.diffusion.models.listed import BY_ID, LISTED, TINY
from mlenergy.diffusion.models.spec import Family, Guidance, ModelSpec, is_tiny


def resolve_model(model_id: str, revision: str | None = None) -> ModelSpec:
    """The spec of a listed id, or one made from the class in a folder's or repository's model_index.json.

    Raises:
        UserError: unknown tiny model, no such folder or repository, or an unsupported pipeline class.
    """
    if model_id in BY_ID:
        return BY_ID[model_id]
    if is_tiny(model_id):
        known = ", ".join(spec.model_id for spec in TINY)
        raise UserError(f"no tiny model is called {model_id}; use one of: {known}")
    model = read_model(model_id, revision)
    class_name = str(model.index["_class_name"])
    family = FAMILIES.get(class_name)
    if family is None:
        raise UserError(
            f"{model_id} is a {class_name}, which is not supported; supported: {', '.join(sorted(FAMILIES))}"
        )
    return _spec_from_config(model_id, family, model.component_config(family.denoiser))


def _spec_from_config(model_id: str, family: Family, config: Mapping[str, Any]) -> ModelSpec:
    like = next(spec for spec in LISTED if spec.family is family)
    takes_no_guidance = family.name == "flux" and not config.get("guidance_embeds", False)
    guidance: Guidance = "none" if takes_no_guidance else like.guidance
    heads = config.get("num_attention_heads")
    return ModelSpec(
        model_id=str(Path(model_id).resolve()) if Path(model_id).is_dir() else model_id,
        family=family,
        guidance=guidance,
        default_steps=like.default_steps,
        default_guidance_scale=None if takes_no_guidance else like.default_guidance_scale,
        default_dtype=like.default_dtype,
        default_height_px=_default_size(like, config),
        default_width_px=_default_size(like, config),
        default_max_sequence_length=like.default_max_sequence_length,
        max_sequence_length_limit=like.max_sequence_length_limit,
        heads=heads if isinstance(heads, int) else None,
        layers=_layers(config),
        source=f"its own configuration; defaults of {like.model_id}",
    )


def _default_size(like: ModelSpec, config: Mapping[str, Any]) -> int:
    """A denoiser's sample_size counts latent cells; FLUX has none and takes the family's default."""
    cells = config.get("sample_size")
    return cells * like.family.latent_factor if isinstance(cells, int) else like.default_height_px


def _layers(config: Mapping[str, Any]) -> int | None:
    counts = [config.get(key) for key in ("num_layers", "num_single_layers")]
    known = [n for n in counts if isinstance(n, int)]
    return sum(known) if known else None
