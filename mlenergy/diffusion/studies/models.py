"""The study `models`: several models on one dataset of images with captions."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.config.workloads import BATCH
from mlenergy.diffusion.dataset.folder import ImageFolder, read_images
from mlenergy.diffusion.dataset.source import METADATA
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.quality.evaluate import Extractors
from mlenergy.diffusion.report.compare_view import print_comparison
from mlenergy.diffusion.report.comparison import compare
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.report.model_table import model_table
from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.results.quality import compute, read_reference
from mlenergy.diffusion.results.read import load_result
from mlenergy.diffusion.results.repeats import SetUp
from mlenergy.diffusion.studies.content import (
    FIGURE_COLUMNS,
    Chart,
    Column,
    Gap,
    Measured,
    Part,
    Picture,
    Pictures,
    Point,
    Report,
    Series,
    Table,
    Text,
    Value,
    figures_of,
)
from mlenergy.diffusion.studies.likeness import image_files
from mlenergy.diffusion.studies.outcome import Cell, Outcome, StudyRun
from mlenergy.diffusion.studies.study import Study, StudyOptions, Sweep, Sweeps

# Those that this version does not list are left out.
DEFAULTS = (
    "stabilityai/stable-diffusion-xl-base-1.0",
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    "var-d16",
    "infinity-2b",
)
METRICS = {"fid": "FID", "kid": "KID"}
_SWEEP = "models"
_QUICK_SAMPLES = 8
_SHOWN_IMAGES = 4
_REASONS = "quality.json"  # why a metric could not be computed
_WIDTH = 160  # of the comparison's text
_NO_EXTRACTOR = "no extractor: give --inception the file of InceptionV3's weights (docs/quality.md)"
_COLUMNS = (
    Column("model", "model"),
    Column("condition", "steered by"),
    Column("lora", "LoRA"),
    Column("parameters_millions", "M params"),
    Column("size", "pixels"),
    Column("steps", "steps"),
    Column("images", "images"),
    *FIGURE_COLUMNS,
    Column("images_per_s", "images/s"),
    *(Column(key, label) for key, label in METRICS.items()),
)


@option_group("study")
@dataclass(frozen=True, kw_only=True)
class ModelsOptions(StudyOptions):
    """Several models on a dataset of images with captions: size, time, joules, memory, FID."""

    dataset: Path
    """Folder of images with metadata.jsonl, such as mlenergy dataset prepare writes."""
    models: tuple[str, ...] = ()
    """Models to compare; the first one is the base. Default: SDXL, PixArt-Sigma, VAR-d16 and Infinity-2B, as
    far as mlenergy models lists them."""
    skip: tuple[str, ...] = ()
    """Models to leave out, by id or family, such as infinity."""
    lora: str | None = None
    """LoRA that one of the models is measured with too, such as mlenergy finetune writes. Default: none."""
    lora_model: str | None = None
    """Model that the LoRA is for. Default: the one that its configuration names."""
    num_samples: Annotated[int, Range(least=1, most=10_000_000)] = 2000
    """Images of each model: one for each of the first captions."""
    batch_size: Annotated[int, BATCH] = 1
    """Images in one call."""
    inception: Path | None = None
    """File of InceptionV3's weights, for FID and KID against the dataset. Default: they stay unknown."""


@dataclass(frozen=True)
class _Chosen:
    """One configuration: a model, with a LoRA or without."""

    model: str
    lora: str | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.model if self.lora is None else f"{self.model} + {Path(self.lora).name}"

    @cached_property
    def is_class_conditional(self) -> bool:
        """True where no caption steers the model."""
        return resolve_model(self.model).family.condition == "class"

    def cell(self, outcome: Outcome) -> Cell | None:
        """Its cell."""
        return outcome.cell(_SWEEP, model_id=self.model, lora=self.lora)


def sweeps(options: ModelsOptions) -> Sweeps:
    """One run a model: as many images as asked, each caption of the dataset once and in its order."""
    images = read_images(options.dataset)
    iterations = -(-_samples(options) // options.batch_size)
    wanted = iterations * options.batch_size
    if wanted > len(images.examples):
        raise UserError(
            f"{options.dataset} has {len(images.examples)} captions, fewer than the {wanted} images of "
            f"--num_samples {_samples(options)} in batches of {options.batch_size}; ask for fewer"
        )
    captions: dict[str, Any] = {
        "dataset": str((options.dataset / METADATA).resolve()),
        "prompt_column": "text",
        "prompt_order": "file",
    }
    runs = []
    for one in _chosen(options):
        run: dict[str, Any] = {"model_id": one.model, **({} if one.is_class_conditional else captions)}
        runs.append(run if one.lora is None else {**run, "lora": one.lora})
    common = {"benchmark_iters": iterations, "batch_size": options.batch_size}
    yield Sweep(_SWEEP, {"common": common, "list": runs})


def after(options: ModelsOptions, outcome: Outcome) -> None:
    """Compute FID and KID of every run against the dataset, and keep the reasons where there is none."""
    if options.inception is None:
        return
    runs = [run for one in _chosen(options) if (run := _run_of(one.cell(outcome))) is not None]
    folders = [run.folder for run in runs if run.folder is not None]
    reasons: dict[str, dict[str, str]] = {}
    reference = read_reference(options.dataset)
    extractors = Extractors(inception=str(options.inception))
    for folder in folders:
        for metric in METRICS:
            try:
                compute(folder, [metric], reference, extractors, other_runs=folders)
            except UserError as error:
                reasons.setdefault(str(folder), {})[metric] = str(error)
    write_json(outcome.folder / _REASONS, reasons)


def report(options: ModelsOptions, outcome: Outcome) -> Report:
    """One table of all models, the comparison as `mlenergy compare` prints it, and their images."""
    rows = [(one, cell, _row(one, cell, outcome)) for one in _chosen(options) if (cell := one.cell(outcome))]
    table = Table(
        "models",
        "Models on one dataset",
        _COLUMNS,
        [row for _, _, row in rows],
        "Each model at its own size and steps. FID and KID compare its images with all of the dataset: "
        "lower is closer. A class-conditional model draws its own classes and not what the captions say, "
        "so that its distance holds a difference of subjects too.",
    )
    measured = [(one, _with_distance(cell, cell.set_up)) for one, cell, _ in rows if cell.set_up is not None]
    parts: list[Part] = [table, *_comparison(measured), *_charts(rows)]
    images = read_images(options.dataset)
    return Report(
        f"Models on {options.dataset}",
        list(_summary(options, rows)),
        [*parts, _pictures(images, rows)],
        data={"dataset": images.provenance()},
    )


def _samples(options: ModelsOptions) -> int:
    return min(options.num_samples, _QUICK_SAMPLES) if options.quick else options.num_samples


def _chosen(options: ModelsOptions) -> list[_Chosen]:
    """The configurations in order; a LoRA's stands behind its model's.

    Raises:
        UserError: nothing is left, or the LoRA's model is not among them.
    """
    models = options.models or tuple(model for model in DEFAULTS if model in BY_ID)
    for word in options.skip:
        if not any(_is_called(model, word) for model in models):
            raise UserError(f"--skip {word} names none of {', '.join(models)}; leave it out")
    kept = [m for m in dict.fromkeys(models) if not any(_is_called(m, word) for word in options.skip)]
    if not kept:
        raise UserError("--skip leaves no model; skip fewer, or name others by --models")
    if options.lora is None:
        return [_Chosen(model) for model in kept]
    path = Path(options.lora).expanduser()
    lora = str(path.resolve()) if path.exists() else options.lora
    target = options.lora_model or _base_of(path)
    if target not in kept:
        named = "names no model" if target is None else f"is for {target}, which is not among the models"
        raise UserError(f"--lora {options.lora} {named}; choose one by --lora_model: {', '.join(kept)}")
    found = []
    for model in kept:
        found += [_Chosen(model), *([_Chosen(model, lora)] if model == target else [])]
    return found


def _is_called(model: str, word: str) -> bool:
    """True where a word is a model's id or family, or begins its family's name."""
    return model == word or resolve_model(model).family.name.startswith(word.lower())


def _base_of(lora: Path) -> str | None:
    """The model that a LoRA's configuration names."""
    try:
        content = json.loads((lora / "adapter_config.json").read_text(encoding="utf-8"))
        return str(content["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _run_of(cell: Cell | None) -> StudyRun | None:
    """The first complete run, whose images are compared and shown."""
    return next((run for run in cell.runs if run.record is not None), None) if cell else None


def _with_distance(cell: Cell, set_up: SetUp) -> SetUp:
    """The set-up with the FID that was added to its results after they were loaded."""
    runs = [run for run in cell.runs if run.record in set_up.starts and run.folder is not None]
    return SetUp(tuple(load_result(run.folder / "results.json").record for run in runs if run.folder))


def _row(one: _Chosen, cell: Cell, outcome: Outcome) -> dict[str, Value]:
    row: dict[str, Value] = {
        "model": one.model,
        "condition": "class" if one.is_class_conditional else "text",
        "lora": "–" if one.lora is None else Path(one.lora).name,
        **figures_of(cell),
        **_distances(cell, outcome),
    }
    set_up = cell.set_up
    if set_up is None:
        gap = Gap(cell.gap or "not measured")
        return row | dict.fromkeys(("parameters_millions", "size", "steps", "images", "images_per_s"), gap)
    record = set_up.first
    count = record.parameters_count
    plan = _run_content(cell).get("configuration", {})
    return row | {
        "parameters_millions": Gap("not counted") if count is None else Measured(count / 1e6),
        "size": f"{plan['width_px']}x{plan['height_px']}",
        "steps": plan["steps"],
        "images": len(_run_content(cell)["generation_results"]),
        "images_per_s": Measured(set_up.outputs_per_s),
    }


def _run_content(cell: Cell) -> Mapping[str, Any]:
    run = _run_of(cell)
    return {} if run is None else run.content


def _distances(cell: Cell, outcome: Outcome) -> dict[str, Value]:
    """FID and KID of a cell, or the reason why there is none."""
    run = _run_of(cell)
    if run is None or run.folder is None:
        return dict.fromkeys(METRICS, Gap(cell.gap or "not measured"))
    # Read again: they are added to a result after it was loaded.
    quality = json.loads((run.folder / "results.json").read_bytes()).get("quality") or {}
    reasons = _reasons(outcome.folder).get(str(run.folder), {})
    found: dict[str, Value] = {}
    for metric in METRICS:
        value, entry = quality.get(metric), quality.get("metrics", {}).get(metric, {})
        if value is not None and metric not in reasons:
            found[metric] = Measured(value, doubts=tuple(entry.get("notes", ())))
            continue
        why = reasons.get(metric) or (quality.get(f"{metric}_reason") if entry else None)
        found[metric] = Gap(why or _NO_EXTRACTOR)
    return found


def _reasons(folder: Path) -> Mapping[str, Mapping[str, str]]:
    try:
        content = json.loads((folder / _REASONS).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _comparison(measured: Sequence[tuple[_Chosen, SetUp]]) -> list[Part]:
    """The text of `mlenergy compare`, and who wins against the first model."""
    if len(measured) < 2:
        return []
    comparison = compare([(one.name, [set_up]) for one, set_up in measured], [])
    text = io.StringIO()
    print_comparison(comparison, Console(file=text, width=_WIDTH, highlight=False, markup=False))
    others = zip(measured[1:], comparison.pairs, strict=True)
    winners = [(one.name, dict(model_table(pair).winners)) for (one, _), pair in others]
    base = measured[0][0].name
    table = Table(
        "winners",
        f"Against {base}",
        (Column("model", "model"), *(Column(_key(name), name) for name in winners[0][1])),
        [{"model": name, **{_key(one): who for one, who in rows.items()}} for name, rows in winners],
        f"Who wins between {base} and each other model, as mlenergy compare says of two.",
    )
    lines = text.getvalue().rstrip().split("\n")
    return [table, Text("As mlenergy compare prints it", lines, preformatted=True)]


def _key(heading: str) -> str:
    return heading.lower().replace(" ", "_")


Rows = Sequence[tuple[_Chosen, Cell, dict[str, Value]]]


def _charts(rows: Rows) -> Iterator[Chart]:
    for key, label in (("time_per_image_s", "seconds an image"), ("energy_per_image_j", "joules an image")):
        series = []
        for one, _, row in rows:
            cost, distance = row[key], row["fid"]
            if isinstance(cost, Measured) and isinstance(distance, Measured):
                text = f"{one.name}: {number(cost.value)}, FID {number(distance.value)}"
                series.append(Series(one.name, [Point(cost.value, distance.value, label=text)]))
        if series:
            yield Chart(
                f"fid_over_{key}",
                f"FID over {label}",
                label,
                "FID with the dataset",
                series,
                note="Further left and lower is better.",
            )


def _pictures(images: ImageFolder, rows: Rows) -> Pictures:
    """The dataset's first images beside what each model makes of their captions."""
    runs = [(one, run) for one, cell, _ in rows if (run := _run_of(cell)) is not None]
    shown = []
    for index, example in enumerate(images.examples[:_SHOWN_IMAGES]):
        line = [Picture(example.file, "")]
        for one, run in runs:
            files, prompts = image_files(run), run.content["generation_results"]
            if index >= len(files):
                line.append(Picture(None, "", "no image"))
            else:
                line.append(
                    Picture(files[index], prompts[index]["prompt"] if one.is_class_conditional else "")
                )
        shown.append((example.caption, line))
    columns = ["dataset", *(one.name for one, _ in runs)]
    return Pictures("images", "The first captions", columns, shown)


def _summary(options: ModelsOptions, rows: Rows) -> Iterator[str]:
    best = (
        ("time_per_image_s", "Fastest", "s an image"),
        ("energy_per_image_j", "Least energy", "J an image"),
        ("fid", "Closest to the dataset", "FID"),
    )
    for key, name, unit in best:
        known = [(row[key], one.name) for one, _, row in rows]
        values = [(value.value, model) for value, model in known if isinstance(value, Measured)]
        if len(values) > 1:
            value, model = min(values)
            yield f"{name}: {model}, {number(value)} {unit}."
    if options.inception is None:
        yield f"FID and KID are not known: {_NO_EXTRACTOR}."
    if any(cell.set_up is not None and cell.set_up.first.weights == "random" for _, cell, _ in rows):
        yield "Some weights are random: their images are noise, and FID and KID are not computed of them."
    training = _training(options)
    if training is not None:
        joules = training.get("energy_j")
        energy = (
            f"energy not known ({training.get('energy_reason')})" if joules is None else f"{number(joules)} J"
        )
        yield (
            f"The LoRA was trained in {training['steps']} steps on {training['images']} images: "
            f"{number(training['duration_s'])} s, {energy}."
        )


def _training(options: ModelsOptions) -> Mapping[str, Any] | None:
    """The record of the LoRA's training, where `mlenergy finetune` wrote one beside it."""
    if options.lora is None:
        return None
    try:
        content = json.loads((Path(options.lora).expanduser() / "training.json").read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


MODELS = Study("models", ModelsOptions, sweeps, report, after=after)
