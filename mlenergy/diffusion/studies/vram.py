"""The study `vram`: memory that models take on a card, how many images fit on it, and what card is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from mlenergy.diffusion.config.args import ITERATIONS
from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.config.workloads import BATCH, PIXELS
from mlenergy.diffusion.models.spec import Dtype
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.studies.cards import Card, card_of, cards, requirement_of, smallest_card
from mlenergy.diffusion.studies.content import (
    FIGURE_COLUMNS,
    Chart,
    Column,
    Gap,
    Measured,
    Part,
    Point,
    Report,
    Series,
    Table,
    Value,
    figures_of,
    load_of,
    memory_of,
)
from mlenergy.diffusion.studies.outcome import Cell, Outcome, StudyRun
from mlenergy.diffusion.studies.study import Study, StudyOptions, Sweep, Sweeps
from mlenergy.diffusion.supervision.status import read_status

_QUICK_MODELS, _QUICK_BATCH = 1, 4
_GB = 1e9
_STAGES = {
    "text_encode": "text encoding",
    "denoise": "denoising",
    "vae_decode": "VAE decoding",
    "other": "other",
}


@option_group("study")
@dataclass(frozen=True, kw_only=True)
class VramOptions(StudyOptions):
    """Memory on the card: peaks and phases, images until it is full, and the smallest card for each model."""

    models: tuple[str, ...] = (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "VuDucQuang/food-style",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "stabilityai/sdxl-turbo",
    )
    """Models to compare: Stable Diffusion 1.5, a fine-tune of it on food, SDXL and SDXL-turbo."""
    size: Annotated[int, PIXELS] = 512
    """Edge of the square images in pixels."""
    steps: Annotated[int | None, Range(least=1, most=10_000)] = None
    """Denoising steps. Default: each model's."""
    dtype: Dtype = "float16"
    """Floating-point type of weights and computation."""
    iters: Annotated[int, ITERATIONS] = 3
    """Measured iterations of each run."""
    most_batch: Annotated[int, BATCH] = 256
    """The largest batch that is tried."""
    margin: Annotated[float, Range(least=0, most=10)] = 0.2
    """Share that the recommended memory adds to what a run held."""


def sweeps(options: VramOptions) -> Sweeps:
    """Every model with one image, then larger batches of each until its card is full."""
    models = list(dict.fromkeys(options.models))
    models = models[:_QUICK_MODELS] if options.quick else models
    tried: dict[str, list[Cell]] = {model: [] for model in models}
    number_of_sweep = 0
    while runs := _next_runs(tried, options):
        number_of_sweep += 1
        common = {
            "height": options.size,
            "width": options.size,
            "inference_steps": options.steps,
            "dtype": options.dtype,
            "benchmark_iters": options.iters,
            "attention_slicing": True,
            "save_images": False,
        }
        # Slicing of the VAE is by images: of one image it is what happens anyway, and refused.
        listed = [
            {"model_id": model, "batch_size": batch, "vae_slicing": True if batch > 1 else None}
            for model, batch in runs
        ]
        cells = yield Sweep(f"round-{number_of_sweep}", {"common": common, "list": listed})
        for cell in cells:
            tried[str(cell.option("model_id"))].append(cell)


def next_batch(fits: Mapping[int, bool | None], most: int) -> int | None:
    """The batch to try next: twice as many until one does not fit, then halves of the distance.

    Args:
        fits: batch -> True (it ran), False (out of memory), None (no answer).
        most: the largest batch.

    Returns:
        None at the end: the largest batch that fits is known within an eighth, or a batch gave no answer.
    """
    if 1 not in fits:
        return 1
    if None in fits.values() or not fits[1]:
        return None
    largest = max(batch for batch, ran in fits.items() if ran)
    too_large = min((batch for batch, ran in fits.items() if not ran), default=None)
    if too_large is None:
        return min(2 * largest, most) if largest < most else None
    distance = too_large - largest
    return None if distance <= max(1, largest // 8) else largest + distance // 2


def report(options: VramOptions, outcome: Outcome) -> Report:
    """Models with one image, requirements, batches, and the phases of each run."""
    by_model: dict[str, list[Cell]] = {}
    for cell in outcome.cells():
        by_model.setdefault(str(cell.option("model_id")), []).append(cell)
    first = {model: cells[0] for model, cells in by_model.items()}
    phases = {model: list(_phases(cell)) for model, cell in first.items()}
    log = [line for model, rows in phases.items() for line in _log_lines(model, first[model], rows)]
    parts: list[Part] = [
        _models(first),
        _requirements(first, options.margin),
        _batches(by_model),
        _chart(by_model),
        _phase_table(phases),
        _cards(),
    ]
    plain = {model: [_plain(row) for row in rows] for model, rows in phases.items()}
    return Report(
        "Memory on the card",
        [_what(options), *_largest(by_model, options.most_batch)],
        parts,
        data={"memory_log": plain},
        texts={
            "memory_log.txt": "\n".join(log) + "\n",
            "memory_log.json": json.dumps(plain, indent=2) + "\n",
        },
    )


def is_out_of_gpu_memory(run: StudyRun) -> bool:
    """True for a run that found no room on its GPU."""
    status = None if run.folder is None else read_status(run.folder / "status.json")
    memory = None if status is None else status.get("memory")
    return isinstance(memory, dict) and memory.get("kind") == "gpu"


def _next_runs(tried: Mapping[str, Sequence[Cell]], options: VramOptions) -> list[tuple[str, int]]:
    most = min(options.most_batch, _QUICK_BATCH) if options.quick else options.most_batch
    found = []
    for model, cells in tried.items():
        batch = next_batch({int(cell.option("batch_size")): _fits(cell) for cell in cells}, most)
        # Only a card can be full; a host swaps, and kills other processes.
        is_on_gpu = not cells or any(c.set_up is not None and c.set_up.first.device == "cuda" for c in cells)
        if batch is not None and is_on_gpu:
            found.append((model, batch))
    return found


def _fits(cell: Cell) -> bool | None:
    if cell.set_up is not None:
        return True
    return False if is_out_of_gpu_memory(cell.runs[0]) else None


def _what(options: VramOptions) -> str:
    steps = "each model's steps" if options.steps is None else f"{options.steps} steps"
    what = f"{options.size}x{options.size}, {steps}, {options.dtype}, attention slicing, VAE slicing"
    return f"{what} (of several images)"


def _largest(by_model: Mapping[str, Sequence[Cell]], most: int) -> Iterator[str]:
    for model, cells in by_model.items():
        fits = {int(cell.option("batch_size")): _fits(cell) for cell in cells}
        ran = [batch for batch, answer in fits.items() if answer]
        full = [batch for batch, answer in fits.items() if answer is False]
        if ran and full:
            count = "1 image" if max(ran) == 1 else f"{max(ran)} images at a time"
            yield f"{model}: the card has room for {count}, not for {min(full)}"
        elif full:
            yield f"{model}: the card has no room for one image"
        elif ran and max(ran) >= most:
            yield f"{model}: the card has room for {max(ran)} images at a time; more were not tried"


def _models(first: Mapping[str, Cell]) -> Table:
    columns = (
        Column("model", "model"),
        Column("load_s", "load s"),
        *FIGURE_COLUMNS,
        Column("card_percent", "% of the card"),
        Column("reserved_gb", "reserved GB"),
        Column("driver_used_gb", "driver's GB"),
        Column("host_memory_gb", "host GB"),
    )
    rows = [
        {
            "model": model,
            "load_s": load_of(cell),
            **figures_of(cell),
            "card_percent": _card_percent(cell),
            "reserved_gb": _memory_gb(cell, "peak_reserved_bytes"),
            "driver_used_gb": _memory_gb(cell, "driver_used_bytes"),
            "host_memory_gb": _memory_gb(cell, "host_rss_peak_bytes"),
        }
        for model, cell in first.items()
    ]
    note = (
        "peak: the most that tensors took on the card; reserved: the most that torch's allocator held; "
        "driver's: in use on the whole card after the last window; host: the largest resident size of the "
        "process. GB are 10⁹ bytes."
    )
    return Table("models", "One image at a time", columns, rows, note)


def _requirements(first: Mapping[str, Cell], margin: float) -> Table:
    columns = (
        Column("model", "model"),
        Column("minimum_gb", "minimum GB"),
        Column("minimum_card", "smallest card for it"),
        Column("recommended_gb", "recommended GB"),
        Column("recommended_card", "smallest card for it"),
    )
    rows = [{"model": model, **_requirement(cell, margin)} for model, cell in first.items()]
    note = (
        "minimum: the peak of one image, and what the driver's context takes. recommended: what the run held "
        f"of its card, and {100 * margin:g} % more. Cards by the memory that their driver reports (below)."
    )
    return Table("requirements", "Requirements", columns, rows, note)


def _requirement(cell: Cell, margin: float) -> dict[str, Value]:
    keys = ("minimum_gb", "minimum_card", "recommended_gb", "recommended_card")
    peak, reserved = _memory_bytes(cell, "peak_memory_bytes"), _memory_bytes(cell, "peak_reserved_bytes")
    if isinstance(peak, Gap) or isinstance(reserved, Gap):
        return dict.fromkeys(keys, peak if isinstance(peak, Gap) else reserved)
    used = _memory_bytes(cell, "driver_used_bytes")
    shared = any(warning["code"] == "shared_gpu" for warning in cell.runs[0].content.get("warnings") or ())
    needed = requirement_of(peak, reserved, None if isinstance(used, Gap) else used, shared, margin)
    doubts = () if needed.doubt is None else (needed.doubt,)
    return {
        "minimum_gb": Measured(needed.minimum_bytes / _GB, doubts=doubts),
        "minimum_card": _card_name(needed.minimum_bytes),
        "recommended_gb": Measured(needed.recommended_bytes / _GB, doubts=doubts),
        "recommended_card": _card_name(needed.recommended_bytes),
    }


def _card_name(needed_bytes: int) -> str | Gap:
    card = smallest_card(needed_bytes)
    return Gap("more than the largest of the cards below has") if card is None else card.name


def _batches(by_model: Mapping[str, Sequence[Cell]]) -> Table:
    columns = (
        Column("model", "model"),
        Column("batch", "images at a time"),
        *FIGURE_COLUMNS,
        Column("card_percent", "% of the card"),
        Column("fits", "fits"),
    )
    rows: list[dict[str, Value]] = []
    for model, cells in by_model.items():
        for cell in sorted(cells, key=lambda one: int(one.option("batch_size"))):
            fits = _fits(cell)
            rows.append(
                {
                    "model": model,
                    "batch": int(cell.option("batch_size")),
                    **figures_of(cell),
                    "card_percent": _card_percent(cell),
                    "fits": _fits_text(cell, fits),
                }
            )
    note = (
        "Twice as many images each time until the card is full, then halves of the distance, to an eighth. "
        "On a CPU there is no card to fill, so that one image is all."
    )
    return Table("batches", "Images until the card is full", columns, rows, note)


def _fits_text(cell: Cell, fits: bool | None) -> Value:
    if fits is None:
        return Gap(cell.gap or "not known")
    if cell.set_up is not None and cell.set_up.first.device != "cuda":
        return Gap(f"there is no card to fill: the run was on the device {cell.set_up.first.device}")
    return fits


def _chart(by_model: Mapping[str, Sequence[Cell]]) -> Chart:
    series = []
    most: list[float] = []
    for model, cells in by_model.items():
        values = [(float(cell.option("batch_size")), memory_of(cell)) for cell in cells]
        points = sorted((x, y.value) for x, y in values if isinstance(y, Measured))
        most += [x for x, _ in points]
        series.append(Series(model, [Point(x, y) for x, y in points], joined=True))
    found = [card_of(cell.runs[0].content) for cells in by_model.values() for cell in cells if cell.set_up]
    known = {card.name: card.memory_bytes / _GB for card in found if isinstance(card, Card)}
    for name, memory_gb in known.items() if most else ():
        series.append(Series(name, [Point(x, memory_gb) for x in (0.0, max(most))], joined=True))
    return Chart("memory_over_batch", "Peak memory over the batch", "images at a time", "peak GB", series)


def _phase_table(phases: Mapping[str, Sequence[Mapping[str, Value]]]) -> Table:
    keys = ("model", "phase", "duration_s", "gpu_gb", "host_gb")
    labels = ("model", "phase", "s", "GPU GB", "host GB")
    rows = [{"model": model, **row} for model, own in phases.items() for row in own]
    note = (
        "load: the weights on the card, and the process's largest resident size until then. Stages: the peak "
        "while each ran, and the mean seconds of it in a window. run: the peak of all measured windows."
    )
    return Table("phases", "Phases of one image", tuple(map(Column, keys, labels)), rows, note)


def _phases(cell: Cell) -> Iterator[dict[str, Value]]:
    """Load, each stage, and the run as a whole: seconds, and GB on the card and in the host."""
    if cell.set_up is None:
        yield {"phase": "run", **dict.fromkeys(("duration_s", "gpu_gb", "host_gb"), Gap(cell.gap or "-"))}
        return
    content = cell.runs[0].content
    memory, stages = content["memory"], content.get("stages") or {}
    is_on_gpu = memory["peak_memory_bytes"] is not None
    no_gpu = Gap(str(memory["reason"] or "not known"))
    load = (content.get("load") or [{}])[0]
    loaded_bytes = (load.get("facts") or {}).get("host_rss_peak_bytes")
    yield {
        "phase": "load",
        "duration_s": load_of(cell),
        "gpu_gb": memory["parameter_bytes"] / _GB if is_on_gpu else no_gpu,
        "host_gb": Gap("not in this result") if loaded_bytes is None else loaded_bytes / _GB,
    }
    peaks = memory["ranks"][memory["peak_rank"] or 0]["stage_peak_bytes"]
    for stage, words in _STAGES.items():
        seconds = (stages.get(f"{stage}_s") or {}).get("mean")
        peak = peaks.get(stage)
        here = Gap("no peak of this stage alone") if peak is None else peak / _GB
        yield {
            "phase": words,
            "duration_s": Gap(str(stages.get("reason") or "not known")) if seconds is None else seconds,
            "gpu_gb": here if is_on_gpu else no_gpu,
            "host_gb": Gap("on a GPU only the peak of the whole run is kept") if is_on_gpu else here,
        }
    yield {
        "phase": "run",
        "duration_s": float(content["generation_time"]),
        "gpu_gb": memory["peak_memory_bytes"] / _GB if is_on_gpu else no_gpu,
        "host_gb": _memory_gb(cell, "host_rss_peak_bytes"),
    }


def _log_lines(model: str, cell: Cell, rows: Sequence[Mapping[str, Value]]) -> Iterator[str]:
    yield f"{model}, {cell.option('batch_size')} image at a time"
    for row in rows:
        parts = [f"  {str(row['phase']).ljust(14)}"]
        for key, unit in (("duration_s", "s"), ("gpu_gb", "GB on the card"), ("host_gb", "GB in the host")):
            value = row[key]
            known = isinstance(value, int | float)
            parts.append(f"{number(value) if known else '-':>9} {unit}")  # type: ignore[arg-type]  # known
        yield "  ".join(parts)


def _plain(row: Mapping[str, Value]) -> dict[str, Any]:
    values = {key: None if isinstance(value, Gap) else value for key, value in row.items()}
    return {**values, "reasons": {key: one.reason for key, one in row.items() if isinstance(one, Gap)}}


def _cards() -> Table:
    columns = (Column("card", "card"), Column("memory_gb", "GB"))
    known = [(card.name, card.memory_bytes / _GB) for card in cards()]
    rows: list[dict[str, Value]] = [{"card": name, "memory_gb": memory_gb} for name, memory_gb in known]
    return Table("cards", "Common cards", columns, rows)


def _card_percent(cell: Cell) -> Value:
    peak = _memory_bytes(cell, "peak_memory_bytes")
    if isinstance(peak, Gap):
        return peak
    card = card_of(cell.runs[0].content)
    return Gap(card) if isinstance(card, str) else 100 * peak / card.memory_bytes


def _memory_gb(cell: Cell, key: str) -> Value:
    found = _memory_bytes(cell, key)
    return found if isinstance(found, Gap) else found / _GB


def _memory_bytes(cell: Cell, key: str) -> int | Gap:
    """A figure of the result's memory section, of the cell's first run."""
    if cell.set_up is None:
        return Gap(cell.gap or "not measured")
    memory = cell.runs[0].content["memory"]
    value = memory[key]
    return Gap(str(memory["reason"] or "the driver did not tell")) if value is None else int(value)


VRAM = Study("vram", VramOptions, sweeps, report, adaptive=True, is_expected=is_out_of_gpu_memory)
