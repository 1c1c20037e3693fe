"""The images that engines have to give: diffusers' own pipelines, called by hand as their documentation says.

A path of its own: it takes the tiny folders from the package and nothing else, so that an argument that
the package drops, or a default that it changes, makes a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    FluxPipeline,
    HunyuanDiTPipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

from mlenergy.diffusion.weights.tiny import tiny_folder

# Model -> its pipeline, the guidance scale of the tiny models, and the arguments that only its class has.
# PixArt and HunyuanDiT bin resolutions unless they are told not to, and PixArt rewrites captions.
_EXACT_SIZE = {"use_resolution_binning": False}
_EXACT_CAPTION = {**_EXACT_SIZE, "clean_caption": False}
PIPELINES: dict[str, tuple[Any, float, dict[str, Any]]] = {
    "tiny/flux": (FluxPipeline, 3.5, {}),
    "tiny/sd3": (StableDiffusion3Pipeline, 5.0, {}),
    "tiny/sd3.5": (StableDiffusion3Pipeline, 5.0, {}),
    "tiny/pixart-alpha": (PixArtAlphaPipeline, 5.0, _EXACT_CAPTION),
    "tiny/pixart-sigma": (PixArtSigmaPipeline, 5.0, _EXACT_CAPTION),
    "tiny/hunyuandit": (HunyuanDiTPipeline, 5.0, _EXACT_SIZE),
    "tiny/sdxl": (StableDiffusionXLPipeline, 5.0, {}),
    "tiny/sd1.5": (StableDiffusionPipeline, 5.0, {}),
}
TAKES_TEXT_LENGTH = ("tiny/flux", "tiny/sd3", "tiny/sd3.5", "tiny/pixart-alpha", "tiny/pixart-sigma")
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


@torch.no_grad()
def reference_images(wanted: Wanted, change: Callable[[Any], None] = lambda _pipeline: None) -> torch.Tensor:
    """Float32 images of one process, (n, 3, height, width) in [0, 1], of the pipeline after `change`."""
    kind, guidance, only_here = PIPELINES[wanted.model]
    options = {"safety_checker": None, "requires_safety_checker": False} if "sd1.5" in wanted.model else {}
    pipeline = kind.from_pretrained(tiny_folder(wanted.model), dtype=torch.float32, **options)
    pipeline.set_progress_bar_config(disable=True)
    change(pipeline)
    arguments: dict[str, Any] = {
        "prompt": list(wanted.prompts),
        "height": wanted.height_px,
        "width": wanted.width_px,
        "num_inference_steps": wanted.steps,
        "guidance_scale": guidance if wanted.guidance is None else wanted.guidance,
        "generator": generators(wanted.seeds),
        "output_type": "pt",
        **only_here,
    }
    if wanted.negative is not None:
        arguments["negative_prompt"] = [wanted.negative] * len(wanted.prompts)
    if wanted.model in TAKES_TEXT_LENGTH:
        arguments["max_sequence_length"] = wanted.text_tokens or TEXT_TOKENS
    images: torch.Tensor = pipeline(**arguments).images
    return images


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator an image, on the CPU."""
    return [torch.Generator(device="cpu").manual_seed(seed) for seed in seeds]
