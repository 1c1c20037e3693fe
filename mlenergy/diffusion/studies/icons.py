"""The study `icons`: fine-tuned models that draw flat icons, of each prompt one image and its time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.config.workloads import PIXELS
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.results.atomic import written_aside
from mlenergy.diffusion.results.paths import model_slug, prompt_slug
from mlenergy.diffusion.studies.content import (
    FIGURE_COLUMNS,
    Column,
    Gap,
    Picture,
    Pictures,
    Report,
    Table,
    Value,
    figures_of,
    load_of,
)
from mlenergy.diffusion.studies.outcome import Cell, Outcome
from mlenergy.diffusion.studies.study import Study, StudyOptions, Sweep, Sweeps

_QUICK_MODELS, _QUICK_PROMPTS = 1, 2
_SWEEP = "icons"


@option_group("study")
@dataclass(frozen=True, kw_only=True)
class IconsOptions(StudyOptions):
    """Icons by fine-tuned Stable Diffusion models: each model's image of each prompt, and its time."""

    models: tuple[str, ...] = (
        "milyiyo/flat-design-icons",
        "nicky007/stable-diffusion-logo-fine-tuned",
        "proximasanfinetuning/fantassified-icons-v2",
    )
    """Models to compare."""
    prompts: tuple[str, ...] = (
        "bank transfer icon",
        "minimal fintech payment icon",
        "switch transfer symbol",
        "notification bell icon",
        "premium investment logo",
    )
    """Prompts, one image each."""
    prefix: str = "flat design icon, simple shapes, solid colors, white background,"
    """Text put before every prompt."""
    size: Annotated[int, PIXELS] = 512
    """Edge of the square images in pixels."""
    steps: Annotated[int, Range(least=1, most=10_000)] = 25
    """Denoising steps."""
    guidance: Annotated[float, Range(least=0, most=1000)] = 7.5
    """Guidance scale."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """auto: NVIDIA GPUs if torch can use them, else Apple's GPU, else the CPU."""
    allow_pickle: bool = False
    """Also load weights other than safetensors files, which is all that the default models have. Such files
    can run code: only for sources you trust."""


def before(options: IconsOptions, folder: Path) -> None:
    """Write the prompts to the file that the runs read.

    Raises:
        UserError: it cannot be written.
    """
    with written_aside(_prompt_file(options, folder)) as aside:
        aside.write_text("".join(f"{prompt}\n" for prompt in _prompts(options)), encoding="utf-8")


def sweeps(options: IconsOptions) -> Sweeps:
    """One run a model, with one window a prompt, in the prompts' order."""
    prompts = _prompts(options)
    common: dict[str, Any] = {
        "device": options.device,
        "benchmark_iters": len(prompts),
        "attention_slicing": True,
        "dataset": str(_prompt_file(options, ICONS.folder_of(options))),
        "prompt_order": "file",
        "prompt_prefix": options.prefix,
        "height": options.size,
        "width": options.size,
        "inference_steps": options.steps,
        "guidance_scale": options.guidance,
        "allow_pickle": options.allow_pickle,
    }
    models = options.models[:_QUICK_MODELS] if options.quick else options.models
    yield Sweep(_SWEEP, {"common": common, "grid": {"model_id": list(dict.fromkeys(models))}})


def report(options: IconsOptions, outcome: Outcome) -> Report:
    """Images with their times, a row a model, and the images side by side, copied to MODEL/PROMPT.png."""
    prompts, cells = _prompts(options), outcome.cells(_SWEEP)
    made = {cell.label: _images(cell) for cell in cells}
    files = {
        _file_name(cell, prompt): image["file"]
        for cell in cells
        for prompt, image in zip(prompts, made[cell.label], strict=False)
        if image["file"] is not None
    }
    done = sum(len(images) for images in made.values())
    where = next((c.set_up.first for c in cells if c.set_up is not None), None)
    machine = [] if where is None else [f"ran on {where.device_name or where.device}"]
    total = f"{done} of {len(cells) * len(prompts)} images"
    what = (
        f"{options.size}x{options.size}, {options.steps} steps, guidance {number(options.guidance)}, "
        "attention slicing, no safety checker"
    )
    pictures = [
        (prompt, [_picture(cell, made[cell.label], index) for cell in cells])
        for index, prompt in enumerate(prompts)
    ]
    return Report(
        "Icons by fine-tuned models",
        [", ".join([total, *machine]), what, f"each prompt after: {options.prefix}"],
        [
            Pictures("icons", "Images", [str(cell.option("model_id")) for cell in cells], pictures),
            _model_table(cells, made),
            _image_table(cells, prompts, made),
        ],
        files=files,
    )


def _prompts(options: IconsOptions) -> list[str]:
    """The prompts that are asked for, each on one line.

    Raises:
        UserError: two of them would be one file, or one is no line.
    """
    prompts = [" ".join(prompt.split()) for prompt in options.prompts]
    prompts = prompts[:_QUICK_PROMPTS] if options.quick else prompts
    names: dict[str, str] = {}
    for prompt in prompts:
        name = prompt_slug(prompt)
        if name in names:
            raise UserError(
                f"the prompts {names[name]!r} and {prompt!r} would both be {name}.png; change one"
            )
        names[name] = prompt
    return prompts


def _prompt_file(options: IconsOptions, folder: Path) -> Path:
    """Named by its content: other prompts are other runs."""
    content = hashlib.sha256("\n".join(_prompts(options)).encode()).hexdigest()
    return folder / f"prompts-{content[:8]}.txt"


def _file_name(cell: Cell, prompt: str) -> str:
    return f"{model_slug(str(cell.option('model_id')))}/{prompt_slug(prompt)}.png"


def _images(cell: Cell) -> list[dict[str, Any]]:
    """The images of a model in the prompts' order, those of an interrupted run too.

    Returns:
        `file` (None where it is not saved), `time_s`, `energy_j` and `seed` of each.
    """
    run = cell.runs[0]
    return [
        {
            "file": None if run.folder is None or image["image"] is None else run.folder / image["image"],
            **{key: image[key] for key in ("time_s", "energy_j", "seed")},
        }
        for image in run.content.get("generation_results", ())
    ]


def _picture(cell: Cell, images: Sequence[Mapping[str, Any]], index: int) -> Picture:
    if index >= len(images):
        return Picture(None, "", cell.gap or "not made")
    image = images[index]
    return Picture(image["file"], f"{number(image['time_s'])} s", "its file was not saved")


def _model_table(cells: Sequence[Cell], made: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    columns = (
        Column("model", "model"),
        Column("images", "images"),
        Column("load_s", "load s"),
        *FIGURE_COLUMNS,
    )
    rows: list[dict[str, Value]] = [
        {
            "model": str(cell.option("model_id")),
            "images": len(made[cell.label]),
            "load_s": load_of(cell),
            **figures_of(cell),
        }
        for cell in cells
    ]
    note = "± is the 95 % interval of the mean over the prompts, one window each, after a warm-up."
    return Table("models", "Models", columns, rows, note)


def _image_table(
    cells: Sequence[Cell], prompts: Sequence[str], made: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Table:
    keys = ("model", "prompt", "time_s", "energy_j", "seed", "file")
    labels = ("model", "prompt", "s", "J", "seed", "file")
    rows = list(_image_rows(cells, prompts, made))
    return Table("images", "Time of each image", tuple(map(Column, keys, labels)), rows)


def _image_rows(
    cells: Sequence[Cell], prompts: Sequence[str], made: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Iterator[dict[str, Value]]:
    for cell in cells:
        for index, prompt in enumerate(prompts):
            row: dict[str, Value] = {"model": str(cell.option("model_id")), "prompt": prompt}
            if index >= len(made[cell.label]):
                gap = Gap(cell.gap or "not made")
                yield row | dict.fromkeys(("time_s", "energy_j", "seed", "file"), gap)
                continue
            image = made[cell.label][index]
            measured = cell.runs[0].content.get("energy_measurement") or {}
            no_energy = Gap(str(measured.get("reason") or "not in this result"))
            has_file = image["file"] is not None
            yield {
                **row,
                "time_s": image["time_s"],
                "energy_j": no_energy if image["energy_j"] is None else image["energy_j"],
                "seed": image["seed"],
                "file": _file_name(cell, prompt) if has_file else Gap("its file was not saved"),
            }


ICONS = Study("icons", IconsOptions, sweeps, report, before=before)
