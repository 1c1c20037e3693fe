"""The keyword arguments of one call of a family's pipeline, but for prompts and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlenergy.diffusion.config.plan import Plan


def call_arguments(plan: Plan) -> Mapping[str, Any]:
    """Arguments of a pipeline's call, on every iteration and every rank alike."""
    family = plan.spec.family
    arguments: dict[str, Any] = {
        "height": plan.height_px,
        "width": plan.width_px,
        "num_inference_steps": plan.steps,
        "output_type": "pt",
    }
    if plan.guidance_scale is not None:
        arguments["guidance_scale"] = plan.guidance_scale
    if family.takes_text_length and plan.max_sequence_length is not None:
        arguments["max_sequence_length"] = plan.max_sequence_length
    if plan.negative_prompt is not None:
        # A list: HunyuanDiT takes a single string for one image, whatever the batch.
        arguments["negative_prompt"] = [plan.negative_prompt] * plan.batch_size
    if family.bins_resolution:
        # Binning computes at the nearest of the model's own sizes: off, unless it is asked for.
        arguments["use_resolution_binning"] = plan.use_resolution_binning
    if family.cleans_captions:
        # By default prompts are rewritten where two optional packages happen to be installed.
        arguments["clean_caption"] = False
    return arguments
