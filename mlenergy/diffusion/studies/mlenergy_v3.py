"""The study `mlenergy-v3`: the configurations of the public leaderboard, measured here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlenergy.diffusion.config.option import nearest
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.results.published import PublishedRun, published_runs
from mlenergy.diffusion.studies.mlenergy_v3_options import TASKS, MlEnergyV3Options, Part, published_models
from mlenergy.diffusion.studies.mlenergy_v3_report import report
from mlenergy.diffusion.studies.study import Study, Sweep, Sweeps
from mlenergy.diffusion.studies.vram import is_out_of_gpu_memory

_QUICK_GPUS = 2
_PROMPTS: Mapping[Part, Mapping[str, str]] = {"image": {}, "video": {"dataset": "bundled-videos"}}


@dataclass(frozen=True)
class _Grid:
    """The published configurations of one model: it was measured with one number of steps and one size."""

    first: PublishedRun
    batches: tuple[int, ...]
    degrees: tuple[tuple[int, int], ...]  # Ulysses and ring
    published: frozenset[tuple[int, int, int]]  # batch, Ulysses and ring, for any GPU


def sweeps(options: MlEnergyV3Options) -> Sweeps:
    """One sweep a part, the cheapest runs first, so that there is soon something to look at."""
    _check_models(options)
    for part in dict.fromkeys(options.parts):
        runs = [run for grid in _grids(part, options) for run in _runs(grid, options)]
        if runs:
            common = {"benchmark_iters": options.iters, "save_images": False, **_PROMPTS[part]}
            yield Sweep(part, {"common": common, "list": runs, "order": "cheapest"})


def offered(part: Part) -> list[str]:
    """Published models that this version runs, in the order of the file."""
    return [model for model in published_models(part) if model in BY_ID]


def stand_in(model: str) -> str:
    """The tiny model of a published model's family."""
    family = BY_ID[model].family
    return next(name for name, spec in BY_ID.items() if name.startswith("tiny/") and spec.family is family)


def _check_models(options: MlEnergyV3Options) -> None:
    """Refuse models of which nothing was published, or that this version does not run."""
    published = [model for part in options.parts for model in published_models(part)]
    for model in options.models:
        if model not in published:
            meant = nearest(model, published)
            hint = f"did you mean {meant}?" if meant else f"use some of {', '.join(published)}"
            raise UserError(
                f"nothing was published of {model} in the parts {', '.join(options.parts)}; {hint}"
            )
        if model not in BY_ID:
            raise UserError(
                f"{model} was published, but this version does not run it; leave it out of --models"
            )


def _grids(part: Part, options: MlEnergyV3Options) -> Iterator[_Grid]:
    for model in offered(part):
        if options.models and model not in options.models:
            continue
        runs = [run for run in published_runs(TASKS[part]) if run.model_id == model]
        works = {(run.steps, run.height_px, run.width_px, run.num_frames, run.dtype) for run in runs}
        assert len(works) == 1, f"{model} was published with {works}"
        batches = sorted({run.batch_size for run in runs})
        degrees = sorted(
            {(run.ulysses, run.ring) for run in runs}, key=lambda pair: (pair[0] * pair[1], pair)
        )
        if options.batches:
            batches = [batch for batch in batches if batch in options.batches]
        if options.max_gpus is not None:
            degrees = [pair for pair in degrees if pair[0] * pair[1] <= options.max_gpus]
        if options.quick:
            batches = batches[:1]
            degrees = _first_of_each_count(degrees)
        published = frozenset((run.batch_size, run.ulysses, run.ring) for run in runs)
        yield _Grid(runs[0], tuple(batches), tuple(degrees), published)


def _first_of_each_count(degrees: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """One product for each number of GPUs up to two."""
    by_count = {u * r: (u, r) for u, r in reversed(degrees) if u * r <= _QUICK_GPUS}
    return sorted(by_count.values(), key=lambda pair: pair[0] * pair[1])


def _runs(grid: _Grid, options: MlEnergyV3Options) -> Iterator[Mapping[str, Any]]:
    """Options of every product of the model's batches and degrees."""
    work = _work(grid.first, options.stand_ins)
    for ulysses, ring in grid.degrees:
        for batch in grid.batches:
            if options.published_only and (batch, ulysses, ring) not in grid.published:
                continue
            yield {**work, "batch_size": batch, "ulysses_degree": ulysses, "ring_degree": ring}


def _work(run: PublishedRun, stand_ins: bool) -> dict[str, Any]:
    """Model, size, steps and type of a run as it was published; a stand-in has its own."""
    workload: dict[str, Any] = {} if run.task == "text-to-image" else {"workload": run.task}
    # The published engine where it offers the family.
    workload["engine"] = "xdit" if "xdit" in BY_ID[run.model_id].family.modes else None
    if stand_ins:
        # Tiny models always have random weights, and refuse to be asked for them.
        return {**workload, "model_id": stand_in(run.model_id), "weights": None}
    video = {} if run.num_frames is None else {"num_frames": run.num_frames, "fps": run.fps}
    return {
        **workload,
        "model_id": run.model_id,
        "height": run.height_px,
        "width": run.width_px,
        "inference_steps": run.steps,
        "dtype": run.dtype,
        **video,
    }


MLENERGY_V3 = Study(
    "mlenergy-v3", MlEnergyV3Options, sweeps, report, is_expected=is_out_of_gpu_memory, weights="random"
)
