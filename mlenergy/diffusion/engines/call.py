"""The keyword arguments of one call of a family's pipeline, but for prompts and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlenergy.diffusion.config.plan import Plan

_TEXT_LENGTH = frozenset({"flux", "sd3", "pixart-alpha", "pixart-sigma"})
_BINNING = frozenset({"pixart-alpha", "pixart-sigma", "hunyuandit"})
_CAPTION_CLEANING = frozenset({"pixart-alpha", "pixart-sigma"})


def call_arguments(plan: Plan) -> Mapping[str, Any]:
    """What a pipeline is called with, on every iteration and every rank alike."""
    family = plan.spec.family.name
    arguments: dict[str, Any] = {
        "height": plan.height_px,
        "width": plan.width_px,
        "num_inference_steps": plan.steps,
        "output_type": "pt",
    }
    if plan.guidance_scale is not None:
        arguments["guidance_scale"] = plan.guidance_scale
    if family in _TEXT_LENGTH and plan.max_sequence_length is not None:
        arguments["max_sequence_length"] = plan.max_sequence_length
    if plan.negative_prompt is not None:
        # A list: HunyuanDiT takes a single string for one image, whatever the batch.
        arguments["negative_prompt"] = [plan.negative_prompt] * plan.batch_size
    if family in _BINNING:
        # Binning computes at the nearest of the model's own sizes: off, unless it is asked for.
        arguments["use_resolution_binning"] = bool(getattr(plan, "use_resolution_binning", False))
    if family in _CAPTION_CLEANING:
        # By default prompts are rewritten where two optional packages happen to be installed.
        arguments["clean_caption"] = False
    return arguments
