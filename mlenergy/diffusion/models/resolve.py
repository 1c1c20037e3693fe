"""A model id or a folder -> its ModelSpec, never by substrings of its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.checkpoints import find_checkpoint
from mlenergy.diffusion.models.facts import (
    attention_heads,
    clip_tokens,
    default_size_px,
    embeds_guidance,
    frame_factor,
    latent_factor,
    patch_frames,
    patch_size,
)
from mlenergy.diffusion.models.families import FAMILIES
from mlenergy.diffusion.models.generic import generic_spec
from mlenergy.diffusion.models.hub import ModelFolder, read_model
from mlenergy.diffusion.models.listed import BY_ID, LISTED, TINY
from mlenergy.diffusion.models.spec import Family, Guidance, ModelSpec, is_tiny


def resolve_model(model_id: str, revision: str | None = None) -> ModelSpec:
    """The spec of a listed id, or one made from the class in a folder's or repository's model_index.json.

    Raises:
        UserError: unknown tiny model, no such folder or repository, or a class that makes no image of a text.
    """
    if model_id in BY_ID:
        return BY_ID[model_id]
    if is_tiny(model_id):
        known = ", ".join(spec.model_id for spec in TINY)
        raise UserError(f"no tiny model is called {model_id}; use one of: {known}")
    checkpoint = find_checkpoint(model_id)
    if checkpoint is not None:
        return checkpoint
    model = read_model(model_id, revision)
    class_name = str(model.index["_class_name"])
    family = FAMILIES.get(class_name)
    if family is None or not _describes(family, model):
        return generic_spec(model_id, model, ", ".join(sorted(FAMILIES)))
    return _spec_from_config(model_id, family, model)


def _describes(family: Family, model: ModelFolder) -> bool:
    """False for a later generation of models, which has the pipeline and another denoiser (LTX-2.3)."""
    if not family.configured:
        return True
    config = model.component_config(family.denoiser)
    return all(config.get(key, value) == value for key, value in family.configured.items())


def _spec_from_config(model_id: str, family: Family, model: ModelFolder) -> ModelSpec:
    config, vae = model.component_config(family.denoiser), model.component_config("vae")
    like = _like(family, config, model.index.get("boundary_ratio"))
    factor = latent_factor(vae)
    undistilled = [spec for spec in LISTED if spec.family is family and spec.guidance != "none"]
    if like.guidance == "none" and undistilled and not model.index.get("is_distilled", False):
        like = undistilled[0]  # FLUX.2 klein lists its distilled models first
    of_family = [spec for spec in LISTED if spec.family is family]
    if family.guiders and not set(family.guiders) & set(model.components):
        like = next((spec for spec in of_family if spec.guidance == "embedded"), like)  # it was distilled
    not_embedded = like.guidance == "embedded" and not config.get("guidance_embeds", False)
    takes_no_guidance = not_embedded or like.guidance == "none"
    guidance: Guidance = "none" if takes_no_guidance else like.guidance
    if embeds_guidance(config):
        guidance = "embedded"
    height_px, width_px = default_size_px(like.default_height_px, like.latent_factor, config, factor)
    if family.makes_video:
        height_px, width_px = like.default_height_px, like.default_width_px
    return ModelSpec(
        model_id=str(Path(model_id).resolve()) if Path(model_id).is_dir() else model_id,
        family=family,
        guidance=guidance,
        default_steps=like.default_steps,
        default_guidance_scale=None if takes_no_guidance else like.default_guidance_scale,
        default_dtype=like.default_dtype,
        default_height_px=height_px,
        default_width_px=width_px,
        default_max_sequence_length=like.default_max_sequence_length,
        max_sequence_length_limit=like.max_sequence_length_limit,
        heads=attention_heads(config),
        kv_heads=kv_heads if isinstance(kv_heads := config.get("num_kv_heads"), int) else None,
        layers=_layers(config),
        latent_factor=factor,
        patch_size=patch_size(family, config),
        clip_tokens=_clip_tokens(family, model),
        **(_of_videos(like, config, vae, model.index) if family.makes_video else {}),
        source=f"its own configuration; defaults of {like.model_id}",
    )


def _like(family: Family, config: Mapping[str, Any], boundary_ratio: float | None) -> ModelSpec:
    """The listed model whose defaults are taken; of videos, one of the same shape where there is one."""
    listed = [spec for spec in LISTED if spec.family is family]
    if not family.makes_video:
        return listed[0]
    heads, frames, two = attention_heads(config), patch_frames(config), boundary_ratio is not None

    def unlike(spec: ModelSpec) -> tuple[bool, bool, bool]:
        has_two = spec.default_boundary_ratio is not None
        return (spec.patch_frames != frames, has_two != two, spec.heads != heads)

    return min(listed, key=unlike)


def _of_videos(
    like: ModelSpec, config: Mapping[str, Any], vae: Mapping[str, Any], index: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields that a model of videos has beside the others."""
    return {
        "default_num_frames": config.get("video_length", like.default_num_frames),
        "default_fps": like.default_fps,
        "frame_factor": frame_factor(vae),
        "patch_frames": patch_frames(config),
        "default_guidance_scale_2": like.default_guidance_scale_2,
        "default_boundary_ratio": index.get("boundary_ratio"),
        "text_length_is_fixed": like.text_length_is_fixed,
        "text_step": like.text_step,
    }


def _clip_tokens(family: Family, model: ModelFolder) -> int:
    """CLIP's length, from its file where the length decides anything before loading."""
    return clip_tokens(model.component_config("text_encoder") if family.clip_in_sequence else {})


def _layers(config: Mapping[str, Any]) -> int | None:
    counts = [config.get(key) for key in ("num_layers", "num_single_layers")]
    known = [n for n in counts if isinstance(n, int)]
    return sum(known) if known else None
