"""The bare side of bench_vs_bare.py: a diffusers pipeline, set up and called by hand.

Levers are set through diffusers and torch alone, as their documentation says. Nothing of this project takes
part but the plan, which names the levers, and the loader, which gives both sides the same seeded weights.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    import torch

    from mlenergy.diffusion.config.optimizations import Optimizations
    from mlenergy.diffusion.config.plan import Plan

# Fields of Optimizations that `set_levers` knows.
LEVERS = frozenset(
    {
        *("attention", "cudnn_benchmark", "fuse_qkv", "tf32", "unet_channels_last", "vae_channels_last"),
        *("compile_mode", "compile_fullgraph", "compile_static_shapes", "compile_vae"),
        *(
            "inductor_mode",
            "inductor_coordinate_descent",
            "inductor_conv_1x1_as_mm",
            "inductor_epilogue_fusion",
        ),
    }
)
# Modes of the compiler by the names of torch.compile. Recorded CUDA graphs are left out: who calls such a
# denoiser has to copy its outputs and mark its steps, so that a pipeline of diffusers cannot do it unchanged.
_MODES = {"default": None, "max-autotune-no-cudagraphs": "max-autotune-no-cudagraphs"}
# Attention kernels by the names of diffusers' dispatcher.
_BACKENDS = {
    "sdpa": "native",
    "math": "_native_math",
    "flash": "_native_flash",
    "efficient": "_native_efficient",
    "cudnn": "_native_cudnn",
    "fa2": "flash",
    "fa3": "_flash_3",
    "fa2-hub": "flash_hub",
    "fa3-hub": "_flash_3_hub",
    "fa4-hub": "flash_4_hub",
    "sage": "sage",
}
_PARTS = ("transformer_blocks", "single_transformer_blocks")


def load(plan: Plan) -> Any:
    """The plan's pipeline on its device, with its levers.

    Raises:
        UserError: a lever that diffusers does not have for this model.
    """
    import torch

    from mlenergy.diffusion.weights import pipeline as weights
    from mlenergy.diffusion.weights.per_node import locate

    pipeline: Any = weights.load(locate(plan), plan, torch.device(plan.device))
    set_levers(pipeline, plan.optimizations)
    return pipeline


def set_levers(pipeline: Any, levers: Optimizations) -> None:
    """Give a pipeline the levers, before its first call.

    Raises:
        UserError: diffusers has one of them not, or not for this denoiser.
    """
    import torch

    denoiser = getattr(pipeline, "transformer", None) or pipeline.unet
    if levers.cudnn_benchmark:
        torch.backends.cudnn.benchmark = True
    if levers.tf32:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    if levers.fuse_qkv:
        denoiser.fuse_qkv_projections()
    if levers.attention != "auto":
        _set_attention(denoiser, levers.attention)
    if levers.unet_channels_last:
        denoiser.to(memory_format=torch.channels_last)
    if levers.vae_channels_last:
        pipeline.vae.to(memory_format=torch.channels_last)
    if levers.compile_mode or levers.compile_vae:
        _compile(pipeline, denoiser, levers)


def refused(levers: Optimizations) -> list[str]:
    """Options in use that no bare side has, as a command line writes them."""
    found = [
        f"--{record.option_for(getattr(levers, name))}"
        for name, record in levers.in_use.items()
        if name not in LEVERS
    ]
    if levers.inductor_mode not in _MODES:
        found.append(f"--inductor_mode {levers.inductor_mode}")
    if levers.attention != "auto" and levers.attention not in _BACKENDS:
        found.append(f"--attention_backend {levers.attention}")
    return found


def _set_attention(denoiser: Any, name: str) -> None:
    if not all(hasattr(one, "_attention_backend") for one in denoiser.attn_processors.values()):
        raise UserError(
            f"--attention_backend: diffusers itself chooses no kernel for {type(denoiser).__name__}, so that "
            "there is no bare side to compare with; leave it out"
        )
    denoiser.set_attention_backend(_BACKENDS[name])


def _compile(pipeline: Any, denoiser: Any, levers: Optimizations) -> None:
    from torch._inductor import config as inductor

    if levers.inductor_coordinate_descent:
        inductor.coordinate_descent_tuning = True
    if levers.inductor_conv_1x1_as_mm:
        inductor.conv_1x1_as_mm = True
    if not levers.inductor_epilogue_fusion:
        inductor.epilogue_fusion = False
    how: dict[str, Any] = {
        "mode": _MODES[levers.inductor_mode],
        "dynamic": False if levers.compile_static_shapes else None,
    }
    if levers.compile_mode == "whole":
        denoiser.compile(fullgraph=levers.compile_fullgraph, **how)
    elif levers.compile_mode == "regional" and getattr(denoiser, "_repeated_blocks", None):
        denoiser.compile_repeated_blocks(fullgraph=levers.compile_fullgraph, **how)
    elif levers.compile_mode == "regional":  # SD3, PixArt: diffusers knows their blocks by no name
        for block in (block for name in _PARTS for block in getattr(denoiser, name, ())):
            block.compile(fullgraph=levers.compile_fullgraph, **how)
    if levers.compile_vae:
        pipeline.vae.decoder.compile(**how)


def call(pipeline: Any, plan: Plan, prompt: str, seed: int) -> torch.Tensor:
    """Images of one prompt, (1, 3, height, width), or a video, (1, frames, 3, height, width)."""
    import torch

    taken = inspect.signature(pipeline.__call__).parameters
    family, negative = plan.spec.family, plan.negative_prompt
    if negative is None and plan.runs_guidance_batch:
        negative = family.default_negative
    asked: dict[str, Any] = {
        family.guidance_argument: plan.guidance_scale,
        "guidance_scale_2": plan.guidance_scale_2,
        "negative_prompt": None if negative is None else [negative],
        "max_sequence_length": plan.max_sequence_length,
        "num_frames": plan.num_frames,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    # Sizes as they are asked for, and prompts as they are written: not the defaults of some pipelines.
    asked |= {"use_resolution_binning": False, "clean_caption": False}
    made = pipeline(
        prompt=[prompt],
        height=plan.height_px,
        width=plan.width_px,
        num_inference_steps=plan.steps,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
        **{name: value for name, value in asked.items() if name in taken},
    )
    images: torch.Tensor = made.frames if plan.makes_video else made.images
    return images
