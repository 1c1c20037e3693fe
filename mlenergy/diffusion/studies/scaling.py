"""The study `scaling`: seconds and joules over size, steps and a video's frames, with fitted exponents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from mlenergy.diffusion.config.args import ITERATIONS
from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.config.workloads import FRAMES, PIXELS
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.models.spec import Output
from mlenergy.diffusion.results.units import VIDEO, Unit, unit_made
from mlenergy.diffusion.studies.content import Report
from mlenergy.diffusion.studies.outcome import Outcome
from mlenergy.diffusion.studies.scaling_report import report_on
from mlenergy.diffusion.studies.study import Study, StudyOptions, Sweep, Sweeps

_QUICK_POINTS = 3
_SIZES: Mapping[Output, tuple[int, ...]] = {
    "image": (512, 768, 1024, 1280, 1536),
    "video": (256, 384, 512, 640, 768),
}
_FRAMES = (17, 33, 49, 81)  # one and a multiple of eight, which every listed model takes


@option_group("study")
@dataclass(frozen=True, kw_only=True)
class ScalingOptions(StudyOptions):
    """Seconds and joules over size, steps and a video's frames, with fitted exponents."""

    models: tuple[str, ...] = ("black-forest-labs/FLUX.1-dev",)
    """Models to measure: of images, or of videos."""
    sizes: Annotated[tuple[int, ...], PIXELS] = ()
    """Edges of square images or frames, in pixels. Default: 512 768 1024 1280 1536, of videos 256 384 512 640
    768."""
    frames: Annotated[tuple[int, ...], FRAMES] = ()
    """Frames of videos. Default: 17 33 49 81."""
    steps: Annotated[tuple[int, ...], Range(least=1, most=10_000)] = (5, 10, 20, 40)
    """Numbers of denoising steps."""
    at_steps: Annotated[int | None, Range(least=1, most=10_000)] = None
    """Steps where others vary. Default: each model's."""
    at_size: Annotated[int | None, PIXELS] = None
    """Edge where others vary. Default: each model's height and width."""
    at_frames: Annotated[int | None, FRAMES] = None
    """Frames where others vary. Default: each model's."""
    iters: Annotated[int, ITERATIONS] = 4
    """Measured iterations of each run."""
    repeats: Annotated[int, Range(least=1, most=1000)] = 1
    """Times that each run is started anew."""


def sweeps(options: ScalingOptions) -> Sweeps:
    """Sizes at a number of steps and frames, frames of videos at a size and steps, then steps at both."""
    unit = _unit_of(options)
    sizes, frames, steps = (
        sorted(set(values))[: _QUICK_POINTS if options.quick else None]
        for values in (options.sizes or _SIZES[unit.name], options.frames or _FRAMES, options.steps)
    )
    counts = [len(sizes), len(steps), *([len(frames)] if unit is VIDEO else [])]
    if max(counts) < 2:
        more = "--sizes, --frames or --steps" if unit is VIDEO else "--sizes or --steps"
        raise UserError(f"an exponent needs two or more {more}; give more")
    at: dict[str, Any] = {"height": options.at_size, "width": options.at_size}
    at |= {"inference_steps": options.at_steps, "num_frames": options.at_frames}
    varied: dict[str, tuple[str, list[Any]]] = {"size": ("height, width", [[edge, edge] for edge in sizes])}
    if unit is VIDEO:
        varied["frames"] = ("num_frames", [*frames])
    varied["steps"] = ("inference_steps", [*steps])
    base: dict[str, Any] = {"benchmark_iters": options.iters, "save_images": False}
    if unit is VIDEO:
        base |= {"workload": "text-to-video", "dataset": "bundled-videos"}
    for name, (names, values) in varied.items():
        given = {one: value for one, value in at.items() if one not in names and value is not None}
        grid = {"model_id": list(options.models), names: values}
        yield Sweep(name, {"common": {**base, **given}, "grid": grid, "repeats": options.repeats})


def report(options: ScalingOptions, outcome: Outcome) -> Report:
    """Exponents, points with residuals, and charts."""
    return report_on(options.models, _unit_of(options), outcome)


def _unit_of(options: ScalingOptions) -> Unit:
    """What the models make, where all make the same; --frames says so of models that are not listed.

    Raises:
        UserError: some make images and others videos, or frames are asked of images.
    """
    asks_frames = bool(options.frames) or options.at_frames is not None
    made: dict[Output, str] = {}
    for model in options.models:
        spec = BY_ID.get(model)
        unlisted: Output = "video" if asks_frames else "image"
        made.setdefault(unlisted if spec is None else spec.family.output, model)
    if len(made) > 1:
        raise UserError(
            f"{made['image']} makes images and {made['video']} videos, whose figures are not of one kind; "
            "give each kind a study of its own, with another --folder"
        )
    [(output, model)] = made.items()
    if asks_frames and output == "image":
        raise UserError(f"{model} makes images, which have no frames; leave --frames and --at_frames out")
    return unit_made(output)


SCALING = Study("scaling", ScalingOptions, sweeps, report)
