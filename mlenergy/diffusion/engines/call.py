"""One call of a pipeline: its arguments, its noise, its first step, how often it calls the denoiser."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

import torch

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.errors import UserError


def call_arguments(plan: Plan) -> Mapping[str, Any]:
    """Keyword arguments of every call on every rank, but for prompts and noise."""
    family = plan.spec.family
    arguments: dict[str, Any] = {
        **family.arguments,
        "height": plan.height_px,
        "width": plan.width_px,
        "num_inference_steps": plan.steps,
        "output_type": "pt",
    }
    if plan.guidance_scale is not None and not (family.guiders and plan.spec.guidance == "classifier-free"):
        arguments[family.guidance_argument] = plan.guidance_scale
    if plan.num_frames is not None:
        arguments[family.frames_argument] = plan.num_frames
    if family.takes_frame_rate:
        arguments["frame_rate"] = plan.fps
    if plan.guidance_scale_2 is not None:
        arguments["guidance_scale_2"] = plan.guidance_scale_2
    if family.takes_text_length and plan.max_sequence_length is not None:
        arguments["max_sequence_length"] = plan.max_sequence_length
    negative = plan.negative_prompt
    if negative is None and plan.runs_guidance_batch:
        negative = family.default_negative
    if negative is not None:
        # A list: HunyuanDiT takes a single string for one image, whatever the batch.
        arguments["negative_prompt"] = [negative] * plan.batch_size
    if family.bins_resolution:
        # Binning computes at the nearest of the model's own sizes: off, unless it is asked for.
        arguments["use_resolution_binning"] = plan.use_resolution_binning
    if family.cleans_captions:
        # By default prompts are rewritten where two optional packages happen to be installed.
        arguments["clean_caption"] = False
    return arguments


def set_guiders(plan: Plan, pipeline: Any) -> None:
    """Give the plan's guidance scale to the components that hold it, of a pipeline whose call takes none."""
    if plan.spec.guidance != "classifier-free":
        return
    for name in plan.spec.family.guiders:
        guider = getattr(pipeline, name, None)
        if guider is not None:
            # Of a scale below 1, too, some guiders would run both halves.
            options = {"guidance_scale": plan.guidance_scale, "enabled": plan.runs_guidance_batch}
            setattr(pipeline, name, guider.new(**options))


def noise_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator an image. They are the CPU's: the same seed gives the same noise on every device."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def begin_at_the_first_step(scheduler: Any) -> None:
    """Tell a scheduler that every call begins at its first step, as some pipelines do and some do not.

    A scheduler that is not told looks the first timestep up on the device, and the host waits for the answer
    after the first step. Schedulers that keep no index (DDPM, DDIM, PNDM) are left as they are.
    """
    if not hasattr(scheduler, "set_begin_index"):
        return
    set_timesteps = type(scheduler).set_timesteps

    @functools.wraps(set_timesteps)  # pipelines look at its signature
    def set_and_begin(self: Any, *args: Any, **options: Any) -> None:
        set_timesteps(self, *args, **options)
        self.set_begin_index(0)

    scheduler.set_timesteps = MethodType(set_and_begin, scheduler)  # a copy's is of the copy


def group_rows(data_rank: int, data_degree: int, batch_size: int) -> slice:
    """Rows of the batch that a data-parallel group generates; all groups have equally many."""
    rows = batch_size // data_degree
    return slice(data_rank * rows, (data_rank + 1) * rows)


def scheduled_calls(scheduler: Any, steps: int) -> int | None:
    """Calls of the denoiser that a scheduler of this kind makes for that many steps: one a timestep.

    Mostly one a step; PNDM makes one more, and methods of second order nearly twice as many. Asked of a copy,
    so that a pipeline that sets other steps cannot change the answer. None where it does not tell.
    """
    try:
        asked = copy.deepcopy(getattr(scheduler, "module", scheduler))  # xfuser wraps it
        # Dynamic shifting needs some mu, which moves the timesteps and changes their number in no way.
        shifting = {"mu": 1.0} if getattr(asked.config, "use_dynamic_shifting", False) else {}
        asked.set_timesteps(steps, **shifting)
        return len(asked.timesteps)
    except Exception:  # of a scheduler that wants to be asked otherwise: a check less, and no run lost
        return None


def call_facts(plan: Plan, scheduler: Any) -> dict[str, Any]:
    """Facts of an engine's load report on the denoiser's calls in one generation, on every rank."""
    patches = denoiser_calls(plan)
    calls = scheduled_calls(scheduler, plan.steps) if patches is None else sum(patches)
    if plan.spec.family.is_generic:
        calls = None  # a pipeline may call its denoiser once or twice in a step
    if calls is not None:
        calls *= plan.denoiser_calls_each_step
    name = type(getattr(scheduler, "module", scheduler)).__name__
    return {"denoiser_calls": calls, "scheduler": name}


def outputs_of(plan: Plan, output: Any) -> Any:
    """Images or videos that a pipeline's call returned; of a pipeline that has none of these, None."""
    return getattr(output, "frames" if plan.makes_video else "images", None)


def check_outputs(plan: Plan, made: Any) -> None:
    """Refuse what may come in silence: another size, or no images at all.

    Of a pipeline that no family describes, and of a decoder in tiles, whose sizes may not fit together; all
    others' work is held to the plan's after the measuring (results/executed.py).

    Raises:
        UserError: the images or videos are not those that were asked for.
    """
    if plan.spec.family.has_cost_model and not plan.optimizations.vae_tiling:
        return
    name, kind = plan.spec.family.pipeline_class, "videos" if plan.makes_video else "images"
    frames = () if plan.num_frames is None else (plan.num_frames,)
    size = (*frames, 3, plan.height_px, plan.width_px)
    if not isinstance(made, torch.Tensor) or made.ndim != len(size) + 1:
        raise UserError(f"{name} gives no tensor of {kind}; use another model")
    if tuple(made.shape[1:-3]) != frames:
        raise UserError(
            f"{name} makes {made.shape[1]} frames where {plan.num_frames} were asked for; use "
            f"--workload.num_frames {made.shape[1]}"
        )
    if tuple(made.shape[1:]) != size:
        channels, height, width = made.shape[-3:]
        instead = f"use --workload.height {height} --workload.width {width}"
        if plan.optimizations.vae_tiling:  # tiles that its VAE's file makes of sizes that do not fit together
            instead = "leave --vae_tiling out"
        raise UserError(
            f"{name} makes {kind} of {width}x{height} in {channels} channels "
            f"where {plan.width_px}x{plan.height_px} in 3 were asked for; {instead}"
        )


def denoiser_calls(plan: Plan) -> list[int] | None:
    """Calls of the denoiser on a rank, step by step; None where every step has the same number.

    PipeFusion runs the whole image in its synchronous steps and a patch at a time afterwards.
    """
    synchronous = plan.parallel.pipefusion_warmup_steps
    if plan.engine != "xdit" or plan.parallel.pipefusion == 1 or plan.steps <= synchronous:
        return None
    return [1] * synchronous + [plan.parallel.pipeline_patches] * (plan.steps - synchronous)
