"""Limits of a request, whoever runs it: weights, counts, sizes, guidance, text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from mlenergy.diffusion.models.architectures.reader import architecture_ids, has_architecture
from mlenergy.diffusion.models.facts import scaled_size
from mlenergy.diffusion.models.spec import is_tiny

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

MOST_IMAGES = 1_000_000


def _weights(plan: Plan) -> str | None:
    if plan.weights == "pretrained":
        return None
    option = "--workload.weights random"
    if is_tiny(plan.weights_from):
        return f"{plan.weights_from} always has random weights; leave {option} out"
    if plan.spec.next_scale is not None:
        return _reads_no_files(plan)
    if not has_architecture(plan.weights_from) and not Path(plan.weights_from).is_dir():
        known = ", ".join(architecture_ids())
        return (
            f"{option}: this package has no architecture of {plan.weights_from}; give a folder with its "
            f"configurations and tokenizers, or one of: {known}"
        )
    return _reads_no_files(plan)


def _reads_no_files(plan: Plan) -> str | None:
    needs_files = {
        "lora": plan.lora is not None,
        "variant": plan.variant is not None,
        "revision": plan.revision is not None,
        "allow_pickle": plan.allow_pickle,
        "trust_remote_code": plan.trust_remote_code,
    }
    asked = [name for name, is_on in needs_files.items() if is_on]
    option = "--workload.weights random"
    return f"{option} reads no weight files; leave --workload.{asked[0]} out" if asked else None


def _saved_latents(plan: Plan) -> str | None:
    if plan.save_latents and plan.spec.next_scale is not None:
        return (
            f"--save_latents: {plan.spec.model_id} predicts tokens, of which its decoder makes the image; "
            "leave it out"
        )
    return None


def _images(plan: Plan) -> str | None:
    """Every request of a run is drawn before it starts, and written into its results."""
    iterations = plan.most_iters + plan.warmup_iters
    if plan.batch_size * iterations <= MOST_IMAGES:
        return None
    return (
        f"--workload.batch_size {plan.batch_size} in {iterations} iterations is "
        f"{plan.batch_size * iterations} images; a run makes at most {MOST_IMAGES}, so use fewer of either"
    )


def _certainty(plan: Plan) -> str | None:
    least = max(plan.benchmark_iters, 2)
    if plan.target_ci is None or plan.max_iters >= least:
        return None
    return f"--max_iters {plan.max_iters} is too small: {least} iterations are measured; use {least} or more"


def _sizes(plan: Plan) -> str | None:
    multiple = plan.spec.size_multiple_px
    for option, size in (("height", plan.height_px), ("width", plan.width_px)):
        if size < multiple or size % multiple:
            lower = max(size // multiple, 1) * multiple
            return (
                f"--workload.{option} {size} is not a multiple of {multiple}, which {plan.spec.family.name} "
                f"needs; use {lower} or {lower + multiple}"
            )
    return None


def _area(plan: Plan) -> str | None:
    """Of a pipeline that scales every size to one area: what it would make of the size asked for."""
    cells = plan.spec.family.square_cells
    if cells is None:
        return None
    height, width = scaled_size(plan.height_px, plan.width_px, cells, plan.spec.latent_factor)
    if (height, width) == (plan.height_px, plan.width_px):
        return None
    side = cells * plan.spec.latent_factor
    return (
        f"the {plan.spec.family.name} pipeline scales {plan.width_px}x{plan.height_px} to the area of {side}x"
        f"{side} and makes {width}x{height}; use --workload.height {height} --workload.width {width}"
    )


def _frames(plan: Plan) -> str | None:
    """Pipelines round other numbers, some in silence: the video would have other frames than asked for."""
    frames, step = plan.num_frames, math.lcm(plan.spec.frame_factor, plan.spec.family.frame_step)
    own = plan.spec.default_num_frames
    if plan.spec.family.fixed_frames and frames not in (1, own):
        return (
            f"--workload.num_frames {frames}: the positions of {plan.spec.model_id} in time are laid out for "
            f"{own} frames; use {own}, or 1"
        )
    if frames is None or (frames - 1) % step == 0:
        return None
    lower, family = (frames - 1) // step * step + 1, plan.spec.family.name
    return (
        f"--workload.num_frames {frames}: {family} makes a first frame and multiples of {step} after it; use "
        f"{lower} or {lower + step}"
    )


def _latents(plan: Plan) -> str | None:
    family, factor = plan.spec.family, plan.spec.latent_factor
    if family.only_latent_factor in (None, factor):
        return None
    return (
        f"the VAE of {plan.spec.model_id} makes one latent cell of {factor} pixels a side, and the "
        f"{family.name} pipeline runs {family.only_latent_factor} alone; give a model with such a VAE"
    )


def _device(plan: Plan) -> str | None:
    if plan.device == "mps" and plan.parallel.world_size > 1:
        return "Apple's GPU takes one process; start one, or use --device cpu"
    if plan.device == "mps" and plan.engine == "xdit":
        return "--engine xdit does not run on Apple's GPU; use --engine diffusers"
    return None


def _guidance(plan: Plan) -> str | None:
    spec, scale = plan.spec, plan.guidance_scale
    if spec.guidance == "none" and scale is not None:
        return f"{spec.model_id} takes no guidance scale; leave --workload.guidance_scale out"
    if plan.negative_prompt is None:
        return None
    if spec.guidance == "unknown":
        return (
            f"what {spec.family.pipeline_class} does with a negative prompt is not known; "
            "leave --workload.negative_prompt out"
        )
    if spec.guidance != "classifier-free":
        return f"{spec.model_id} has no classifier-free guidance; leave --workload.negative_prompt out"
    if not spec.family.takes_negative_prompt:
        return (
            f"the {spec.family.name} pipeline takes no negative prompt, as its guidance is away from an "
            "empty one; leave --workload.negative_prompt out"
        )
    above = spec.family.unguided_scale
    if scale is not None and scale <= above:
        return (
            f"at guidance scale {scale:g} a negative prompt does nothing; leave it out or use a scale above "
            f"{above:g}"
        )
    return None


def _second_denoiser(plan: Plan) -> str | None:
    """Options of a model with two denoisers, of which the second takes over at low noise."""
    asked = {"guidance_scale_2": plan.guidance_scale_2, "boundary_ratio": plan.boundary_ratio}
    found = [f"--workload.{name}" for name, value in asked.items() if value is not None]
    if found and plan.spec.default_boundary_ratio is None:
        return f"{found[0]} is for models with two denoisers, such as Wan 2.2's large one; leave it out"
    return None


def _text_length(plan: Plan) -> str | None:
    length, limit = plan.max_sequence_length, plan.spec.max_sequence_length_limit
    if length is None:
        return None
    if plan.spec.text_length_is_fixed and length != limit:
        return (
            f"the positions of {plan.spec.model_id} are laid out for {limit} text tokens; leave "
            "--workload.max_sequence_length out"
        )
    if limit is None:
        return f"{plan.spec.model_id} has a fixed text length; leave --workload.max_sequence_length out"
    if not 1 <= length <= limit:
        return f"--workload.max_sequence_length {length} is outside of 1 to {limit} for {plan.spec.model_id}"
    step = plan.spec.text_step
    if length % step:
        lower = max(length // step, 1) * step
        fits = f"{lower}" if lower > length or lower + step > limit else f"{lower} or {lower + step}"
        return (
            f"--workload.max_sequence_length {length}: {plan.spec.model_id} takes multiples of {step} text "
            f"tokens; use {fits}"
        )
    return None


CHECKS = (
    *(_weights, _saved_latents, _images, _certainty, _latents, _frames, _sizes, _area, _device),
    _guidance,
    _second_denoiser,
    _text_length,
)
