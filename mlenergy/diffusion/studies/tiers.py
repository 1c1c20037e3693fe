"""The study `tiers`: three tiers of optimizations against a baseline, each alone and stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from mlenergy.diffusion.config.args import PROCESSES
from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.report.lines import number
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
from mlenergy.diffusion.studies.factors import FACTOR_COLUMNS, factors_of
from mlenergy.diffusion.studies.likeness import (
    LIKENESS_COLUMNS,
    image_files,
    likeness_of,
    measure_likeness,
)
from mlenergy.diffusion.studies.outcome import Cell, Outcome
from mlenergy.diffusion.studies.study import Study, StudyOptions, Sweep, Sweeps
from mlenergy.diffusion.studies.techniques import DISTILLED, Technique, stacks, techniques

_STEPS = Range(least=2, most=10_000)
_ALONE, _STACKED = "alone", "stacked"
_QUICK_STEPS = 10
_SHOWN_IMAGES = 2
_WEIGHTS = Column("weights_gb", "weights GB")
# Options in which the runs differ.
_VARIED = (
    *("model_id", "inference_steps", "dtype", "scheduler", "attention_backend", "attention_slicing"),
    *("use_torch_compile", "enable_model_cpu_offload", "enable_group_offload", "quantization"),
)
_NAMES = (Column("tier", "tier"), Column("techniques", "techniques"))
_FACTORS = (*_NAMES, *FACTOR_COLUMNS, *LIKENESS_COLUMNS)
_FIGURES = (
    *_NAMES,
    Column("steps", "steps"),
    Column("dtype", "type"),
    Column("engine", "engine"),
    *FIGURE_COLUMNS,
    _WEIGHTS,
)


@option_group("study")
@dataclass(frozen=True, kw_only=True)
class TiersOptions(StudyOptions):
    """Three tiers of optimizations against 50 steps in float32: speed, memory, joules, likeness."""

    model: str = "stabilityai/stable-diffusion-xl-base-1.0"
    """Model of the baseline and of all techniques but the distilled model."""
    distilled: str | None = None
    """Model that was distilled from it. Default: the one that is known of it, if any."""
    steps: Annotated[int, _STEPS] = 50
    """Steps of the baseline; the other solvers take half or two fifths of them."""
    repeats: Annotated[int, PROCESSES] = 3
    """Starts of each run. The intervals hold the difference between starts where there are several."""


def sweeps(options: TiersOptions) -> Sweeps:
    """The baseline and each technique alone; then stacks of those that had a result here."""
    every = _techniques(options)
    alone = [{}, *(dict(one.options) for one in every)]
    cells = yield Sweep(_ALONE, {**_content(options), "list": alone})
    working = [one.name for one in every if (cell := _cell_of(cells, one)) is not None and cell.set_up]
    stacked = [one.options for one in stacks(every, working)]
    if stacked:
        yield Sweep(_STACKED, {**_content(options), "list": stacked})


def after(options: TiersOptions, outcome: Outcome) -> None:
    """Compare the images of every cell with the baseline's."""
    baseline = _baseline(outcome)
    measure_likeness([cell for cell in outcome.cells() if cell is not baseline], baseline, outcome.folder)


@dataclass(frozen=True)
class _Row:
    """A line of the table, and its cell."""

    cell: Cell
    values: dict[str, Value]

    @property
    def names(self) -> str:
        """Its techniques."""
        return str(self.values["techniques"])


def report(options: TiersOptions, outcome: Outcome) -> Report:
    """One table of all factors, the figures behind them, speed against likeness, and the images."""
    every, rows = _techniques(options), _rows(options, outcome)
    values = [row.values for row in rows]
    factors = Table(
        "tiers",
        "Techniques alone, and stacked",
        _FACTORS,
        values,
        "Factors are the baseline's figure ÷ that of the row, with 95 % intervals: above 1 is better. Peak "
        "memory is a maximum and has none. Likeness compares images of the same prompt and seed with the "
        "baseline's: SSIM of 1 is identical. It says how far the image has moved, not whether it is worse.",
    )
    figures = Table("figures", "What was measured", _FIGURES, values)
    parts: list[Part] = [factors, figures, _chart(rows), _pictures(rows)]
    left_out = _left_out(every, outcome)
    if left_out:
        parts.append(Text("Not in the stacks", left_out))
    return Report(f"Tiers of optimizations: {options.model}", _summary(options, rows), parts)


def _techniques(options: TiersOptions) -> list[Technique]:
    every = techniques(_steps(options), _distilled(options))
    return [one for one in every if one.is_quick] if options.quick else every


def _steps(options: TiersOptions) -> int:
    return min(options.steps, _QUICK_STEPS) if options.quick else options.steps


def _distilled(options: TiersOptions) -> str | None:
    return options.distilled or DISTILLED.get(options.model)


def _content(options: TiersOptions) -> dict[str, Any]:
    spec = resolve_model(options.model)
    return {
        "common": {
            "model_id": options.model,
            "inference_steps": _steps(options),
            "dtype": "float32",
            # The distilled model makes images of the same size, so that one image is the same work.
            "height": spec.default_height_px,
            "width": spec.default_width_px,
        },
        "repeats": 1 if options.quick else options.repeats,
    }


def _cell_of(cells: Sequence[Cell], technique: Technique) -> Cell | None:
    """The cell that differs from the first one, the baseline, by this technique alone."""
    names = {*_VARIED, *technique.options}
    wanted = {**{name: cells[0].option(name) for name in names}, **technique.options} if cells else {}
    return next((c for c in cells if {name: c.option(name) for name in names} == wanted), None)


def _baseline(outcome: Outcome) -> Cell | None:
    return next(iter(outcome.cells(_ALONE)), None)


def _rows(options: TiersOptions, outcome: Outcome) -> list[_Row]:
    """The baseline, each technique alone, and the stacks, whose options tell what is in them."""
    every, alone, baseline = _techniques(options), outcome.cells(_ALONE), _baseline(outcome)
    found = [] if baseline is None else [(baseline, "–", "baseline")]
    found += [(cell, str(one.tier), one.name) for one in every if (cell := _cell_of(alone, one)) is not None]
    for cell in outcome.cells(_STACKED):
        parts = [one for one in every if all(cell.option(n) == v for n, v in one.options.items())]
        tiers = "+".join(map(str, sorted({part.tier for part in parts})))
        found.append((cell, f"stack {tiers}", ", ".join(part.name for part in parts)))
    return [
        _Row(
            cell,
            {
                "tier": tier,
                "techniques": names,
                "steps": _setting(cell, "steps"),
                "dtype": _setting(cell, "dtype"),
                "engine": _setting(cell, "engine"),
                **figures_of(cell),
                _WEIGHTS.key: _weights_gb(cell),
                **factors_of(cell, baseline),
                **likeness_of(cell, baseline, outcome.folder),
            },
        )
        for cell, tier, names in found
    ]


def _setting(cell: Cell, name: str) -> Value:
    if cell.set_up is None:
        return Gap(cell.gap or "not measured")
    value: Value = cell.set_up.settings[name]
    return value


def _weights_gb(cell: Cell) -> Measured | Gap:
    """Weights as they are stored, in 10⁹ bytes, of the rank that holds most."""
    run = next((one for one in cell.runs if one.record is not None), None)
    if run is None:
        return Gap(cell.gap or "not measured")
    ranks = [load["facts"].get("weight_bytes") for load in run.content.get("load") or ()]
    if not ranks or None in ranks:
        return Gap("the result does not say how many bytes of weights were stored")
    return Measured(max(sum(sum(kinds.values()) for kinds in rank.values()) for rank in ranks) / 1e9)


def _chart(rows: Sequence[_Row]) -> Chart:
    by_tier: dict[str, list[Point]] = {}
    for row in rows:
        speed, likeness = row.values["speed_factor"], row.values["ssim"]
        if isinstance(speed, Measured) and isinstance(likeness, Measured):
            label = f"{row.names}: {number(speed.value)} × faster, SSIM {number(likeness.value)}"
            point = Point(speed.value, likeness.value, label=label)
            tier = str(row.values["tier"])
            by_tier.setdefault(tier if tier.startswith("stack") else f"tier {tier}", []).append(point)
    return Chart(
        "speed_and_likeness",
        "Speed against likeness",
        "times faster than the baseline",
        "SSIM with the baseline's images",
        [Series(tier, points) for tier, points in by_tier.items()],
        note="Each point is a row of the table that has both; further right and up is better.",
    )


def _pictures(rows: Sequence[_Row]) -> Pictures:
    found = []
    for row in rows:
        run = next((one for one in row.cell.runs if one.record is not None), None)
        files = image_files(run)[:_SHOWN_IMAGES] if run is not None else []
        if files:
            found.append((row.names, [Picture(file, "") for file in files]))
    columns = [f"image {n}" for n in range(1, 1 + max((len(files) for _, files in found), default=0))]
    return Pictures("images", "The same prompts and seeds", columns, found)


def _left_out(every: Sequence[Technique], outcome: Outcome) -> list[str]:
    """A line for each technique of the stacks that had no result by itself."""
    alone = outcome.cells(_ALONE)
    cells = [(one, _cell_of(alone, one)) for one in every if one.is_stacked]
    return [f"{one.name}: {cell.gap}" for one, cell in cells if cell is not None and cell.set_up is None]


def _summary(options: TiersOptions, rows: Sequence[_Row]) -> list[str]:
    lines = []
    for key, noun in (("speed_factor", "faster"), ("energy_factor", "less energy")):
        values = [(row.values[key], row.names) for row in rows[1:]]
        known = [
            (value, names) for value, names in values if isinstance(value, Measured) and not value.doubts
        ]
        best = max(known, key=lambda pair: pair[0].value, default=None)
        if best is not None and best[0].value > 1:
            low, high = best[0].low, best[0].high
            interval = "" if low is None or high is None else f" ({number(low)} to {number(high)})"
            lines.append(f"Most: {number(best[0].value)} times{interval} {noun}, by {best[1]}.")
    if _distilled(options) is None:
        lines.append(f"No model is known that was distilled from {options.model}; --distilled names one.")
    first = rows[0].cell.set_up if rows else None
    if first is not None and first.first.weights == "random":
        lines.append("The weights are random: likeness says how exact a technique is, nothing of quality.")
    return lines


TIERS = Study("tiers", TiersOptions, sweeps, report, adaptive=True, after=after)
