"""The images that engines have to give: diffusers' own pipelines, called by hand as their documentation says.

A path of its own: it takes the tiny folders from the package and nothing else, so that an argument that
the package drops, or a default that it changes, makes a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from parity_group import ByHand
from parity_groups import GROUPS

from mlenergy.diffusion.weights.tiny import tiny_folder

# PixArt and HunyuanDiT bin resolutions unless they are told not to, and PixArt rewrites captions.
_EXACT_SIZE = {"use_resolution_binning": False}
_EXACT_CAPTION = {**_EXACT_SIZE, "clean_caption": False}
_FIRST: dict[str, ByHand] = {
    "tiny/flux": ByHand("FluxPipeline", 3.5, takes_negative=False),
    "tiny/sd3": ByHand("StableDiffusion3Pipeline", 5.0),
    "tiny/sd3.5": ByHand("StableDiffusion3Pipeline", 5.0),
    "tiny/pixart-alpha": ByHand("PixArtAlphaPipeline", 5.0, arguments=_EXACT_CAPTION),
    "tiny/pixart-sigma": ByHand("PixArtSigmaPipeline", 5.0, arguments=_EXACT_CAPTION),
    "tiny/hunyuandit": ByHand("HunyuanDiTPipeline", 5.0, arguments=_EXACT_SIZE, takes_text_length=False),
    "tiny/sdxl": ByHand("StableDiffusionXLPipeline", 5.0, takes_text_length=False),
    "tiny/sd1.5": ByHand("StableDiffusionPipeline", 5.0, takes_text_length=False),
}
_OF_GROUPS = {name: call for group in GROUPS for name, call in group.by_hand.items()}
BY_HAND: dict[str, ByHand] = _FIRST | _OF_GROUPS
_OTHER_LENGTHS = {name: tokens for group in GROUPS for name, tokens in group.text_tokens.items()}
TEXT_TOKENS = 64  # of the tiny models that take a length


@dataclass(frozen=True)
class Wanted:
    """One call: None stands for the model's own default."""

    model: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    height_px: int
    width_px: int
    steps: int
    guidance: float | None = None
    negative: str | None = None
    text_tokens: int | None = None
    frames: int | None = None
    latents: bool = False  # what the decoder would be given


@torch.no_grad()
def reference_images(wanted: Wanted, change: Callable[[Any], None] = lambda _pipeline: None) -> torch.Tensor:
    """Float32 images of one process, (n, 3, height, width) in [0, 1], of the pipeline after `change`.

    Videos are (n, frames, 3, height, width).
    """
    call = BY_HAND[wanted.model]
    kind = getattr(diffusers, call.pipeline)
    options = {"safety_checker": None, "requires_safety_checker": False} if "sd1.5" in wanted.model else {}
    pipeline = kind.from_pretrained(tiny_folder(wanted.model), dtype=torch.float32, **options)
    pipeline.set_progress_bar_config(disable=True)
    if call.slices_vae:
        pipeline.vae.enable_slicing()
    change(pipeline)
    arguments: dict[str, Any] = {
        "prompt": list(wanted.prompts),
        "height": wanted.height_px,
        "width": wanted.width_px,
        "num_inference_steps": wanted.steps,
        "generator": generators(wanted.seeds),
        "output_type": "latent" if wanted.latents else "pt",
        **call.arguments,
    }
    if call.guidance is not None:
        arguments[call.guidance_argument] = call.guidance if wanted.guidance is None else wanted.guidance
    elif wanted.guidance is not None:  # a guider holds it
        pipeline.guider = pipeline.guider.new(guidance_scale=wanted.guidance)
    negative = wanted.negative
    if negative is None and (arguments.get(call.guidance_argument) or 0) > 1:
        negative = call.default_negative
    if negative is not None:
        arguments["negative_prompt"] = [negative] * len(wanted.prompts)
    if call.takes_text_length:
        arguments["max_sequence_length"] = wanted.text_tokens or _OTHER_LENGTHS.get(wanted.model, TEXT_TOKENS)
    if call.frames is not None:
        arguments[call.frames_argument] = wanted.frames or call.frames
        videos: torch.Tensor = pipeline(**arguments).frames
        return videos
    images: torch.Tensor = pipeline(**arguments).images
    return images


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator an image, on the CPU."""
    return [torch.Generator(device="cpu").manual_seed(seed) for seed in seeds]
