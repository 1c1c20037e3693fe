"""A plan as text for people and as data for programs, for `--dry_run` and `mlenergy plan`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.text import Text

from mlenergy.diffusion.config.argv import torchrun_line
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.report.lines import console_for, labelled, number, parallelism_text, title
from mlenergy.diffusion.report.preset_lines import preset_rows
from mlenergy.diffusion.report.ranks import rank_roles
from mlenergy.diffusion.results.build import configuration, plan_warnings
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.units import Unit, unit_made

_MOST_RANKS_SHOWN = 32
_SEQUENCE_KEYS = (
    *("image_tokens", "image_tokens_per_rank", "max_sequence_length", "text_joins_image_tokens"),
    *("tokens_per_rank", "ranks_per_sequence"),
)
_SOUND = "denoised and decoded with the video, in the measured window; not written"
_GENERIC = "not known of a pipeline that no family describes"


def print_plan(plan: Plan, *, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Print a plan on stdout (or `stream`), for people or as JSON."""
    out = sys.stdout if stream is None else stream
    if as_json:
        print(json.dumps(plan_as_dict(plan), indent=2), file=out)
        return
    console: Console = console_for(out)
    console.print(render_plan(plan), soft_wrap=True)


def plan_as_dict(plan: Plan) -> dict[str, Any]:
    """Everything that is decided before a run starts, as plain data.

    `configuration` is what results.json will hold; `sequence` counts tokens of one image.
    """
    return {
        "configuration": configuration(plan),
        "world_size": plan.parallel.world_size,
        "ranks": [asdict(role) for role in rank_roles(plan)],
        "shapes": _shapes(plan),
        "sequence": _sequence(plan),
        _unit(plan).count: plan.batch_size * plan.benchmark_iters,
        "result_folder": str(RunPaths.of(plan).folder),
        "command": torchrun_line(plan),
        "warnings": plan_warnings(plan),
    }


def render_plan(plan: Plan) -> RenderableType:
    """The plan on a screen."""
    spec = plan.spec
    rows = [
        ("model", _model_text(plan)),
        ("engine", f"{plan.engine}, {plan.dtype}"),
        ("device", f"{plan.device}, {plan.device_name}"),
        ("parallelism", parallelism_text(asdict(plan.parallel), plan.parallel.world_size, plan.steps)),
        *[(f"rank {role.rank}", role.role) for role in rank_roles(plan)[:_MOST_RANKS_SHOWN]],
        *_ranks_left_out(plan),
        (
            _unit(plan).name,
            f"{plan.width_px}x{plan.height_px} px, {_frames_text(plan)}"
            f"{plan.steps} {_calls_name(plan)}, {_guidance_text(plan)}",
        ),
        ("latent", _shape_text(_shapes(plan)["latent"], plan.latent_frames if plan.makes_video else None)),
        ("sequence", _sequence_text(plan)),
        ("batch", _batch_text(plan)),
        ("iterations", _iterations_text(plan)),
        ("classes" if plan.is_class_conditional else "prompts", _prompts_text(plan)),
        (_unit(plan).count, _saved_text(plan)),
        *([("sound", _SOUND)] if plan.spec.family.makes_sound else []),
        *preset_rows(configuration(plan)),
        ("result folder", str(RunPaths.of(plan).folder)),
        ("command", torchrun_line(plan)),
    ]
    warnings = labelled([("warning", warning["message"]) for warning in plan_warnings(plan)], "yellow")
    return Group(title(f"Plan for {spec.model_id}"), *labelled(rows), *warnings, Text("Nothing was started."))


def _ranks_left_out(plan: Plan) -> list[tuple[str, str]]:
    left_out = plan.parallel.world_size - _MOST_RANKS_SHOWN
    return [("", f"and {left_out} ranks more: `mlenergy plan --json` lists all")] if left_out > 0 else []


def _iterations_text(plan: Plan) -> str:
    text = f"{plan.warmup_iters} to warm up, {plan.benchmark_iters} measured"
    if plan.target_ci is None:
        return text
    return f"{text} at least, {plan.max_iters} at most, until the mean is certain within {plan.target_ci:.2%}"


def _model_text(plan: Plan) -> str:
    spec = plan.spec
    size = "" if spec.parameters is None else f", {number(spec.parameters / 1e9)} billion parameters"
    revision = "" if plan.revision is None else f", revision {plan.revision}"
    weights = ", random weights" if plan.has_random_weights else ""
    condition = ", class-conditional" if plan.is_class_conditional else ""
    return f"{spec.model_id} ({spec.family.pipeline_class}{condition}{size}{weights}){revision}"


def _calls_name(plan: Plan) -> str:
    """The word for the denoiser's calls that `plan.steps` counts."""
    return "steps" if plan.schedule is None else "scales"


def _shapes(plan: Plan) -> dict[str, Any]:
    """Images (n, 3, height, width) of an iteration; (height, width) of a latent and its tokens, or None."""
    images = [plan.batch_size, 3, plan.height_px, plan.width_px]
    if plan.spec.family.is_generic:
        return {"images": images, "latent": None, "tokens": None}
    factor = plan.spec.latent_factor
    latent = [plan.height_px // factor, plan.width_px // factor]
    return {
        "images": images,
        "latent": latent,
        "tokens": [side // plan.spec.patch_size for side in latent],
        **({} if plan.schedule is None else {"scales": [list(sides) for sides in plan.schedule]}),
    }


def _sequence(plan: Plan) -> dict[str, Any]:
    """Image tokens, and text tokens where they join the same self-attention; in all and per rank."""
    if plan.spec.family.is_generic:
        known = {"max_sequence_length": plan.max_sequence_length, "ranks_per_sequence": 1}
        return {**dict.fromkeys(_SEQUENCE_KEYS), **known}
    ranks = plan.parallel.sequence
    text = plan.max_sequence_length if plan.spec.family.text_tokens_in_sequence else None
    return {
        "image_tokens": plan.tokens,
        "image_tokens_per_rank": plan.tokens // ranks,
        "max_sequence_length": plan.max_sequence_length,
        "text_joins_image_tokens": plan.spec.family.text_tokens_in_sequence,
        "tokens_per_rank": None if text is None else (plan.tokens + text) // ranks,
        "ranks_per_sequence": ranks,
    }


def _sequence_text(plan: Plan) -> str:
    counts = _sequence(plan)
    if plan.spec.family.is_generic:
        return _GENERIC
    if plan.spec.family.denoiser == "unet":
        return "none: the denoiser is a U-Net"
    if plan.schedule is not None:
        last = plan.schedule[-1]
        steered = "; no text" if plan.is_class_conditional else ""
        return f"{plan.tokens} tokens in {plan.steps} scales, the last of {last[0]} x {last[1]}{steered}"
    ranks = counts["ranks_per_sequence"]
    share = f", {counts['image_tokens_per_rank']} on each of {ranks} ranks" if ranks > 1 else ""
    text = plan.max_sequence_length
    joins = "in the same attention" if counts["text_joins_image_tokens"] else "by cross-attention"
    length = "a fixed length" if text is None else text
    return f"{plan.tokens} {_unit(plan).name} tokens{share}; text of {length} {joins}"


def _batch_text(plan: Plan) -> str:
    groups = plan.parallel.data
    share = f", {plan.batch_size // groups} for each of {groups} groups" if groups > 1 else ""
    measured = plan.batch_size * plan.benchmark_iters
    return f"{_unit(plan).counted(plan.batch_size)}{share}, {measured} in all measured"


def _prompts_text(plan: Plan) -> str:
    if plan.is_class_conditional:
        images = plan.batch_size * plan.most_iters
        chosen = f"{len(plan.class_ids)} given, in turn" if plan.class_ids else f"drawn by seed {plan.seed}"
        return f"{chosen}, for {images} images; no prompt steers them"
    column = "" if plan.prompt_column == TextToImage.prompt_column else f", column {plan.prompt_column}"
    prefix = "" if not plan.prompt_prefix else f", after {plan.prompt_prefix!r}"
    negative = "" if plan.negative_prompt is None else f", negative {plan.negative_prompt!r}"
    count = plan.batch_size * plan.most_iters
    fewer = "a smaller set repeats" if plan.prompt_order == "shuffled" else "in its order, each once"
    return f"{plan.dataset}{column}{prefix}{negative}, seed {plan.seed}; {count} are drawn, {fewer}"


def _guidance_text(plan: Plan) -> str:
    if plan.guidance_scale is None:
        return "no guidance"
    text = f"guidance {number(plan.guidance_scale)}"
    if plan.guidance_scale_2 is None:
        return text
    where = "" if plan.boundary_ratio is None else f" (boundary {number(plan.boundary_ratio)})"
    return f"{text}, then {number(plan.guidance_scale_2)}{where}"


def _unit(plan: Plan) -> Unit:
    return unit_made(plan.spec.family.output)


def _frames_text(plan: Plan) -> str:
    return "" if plan.num_frames is None else f"{plan.num_frames} frames at {plan.fps} fps, "


def _saved_text(plan: Plan) -> str:
    files = "MP4 files" if plan.makes_video else "PNG files"
    latents = ", and the final latents" if plan.save_latents else ""
    return f"{f'saved as {files}' if plan.save_images else 'not saved'}{latents}"


def _shape_text(shape: list[int] | None, frames: int | None = None) -> str:
    if shape is None:
        return _GENERIC
    if frames is not None:
        return f"{frames} frames of " + " x ".join(str(side) for side in shape) + " (height x width)"
    return " x ".join(str(side) for side in shape) + " (height x width)"
