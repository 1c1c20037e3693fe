"""The study `scaling`: seconds and joules over image size and steps, with fitted exponents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from mlenergy.diffusion.config.args import ITERATIONS
from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.config.workloads import PIXELS
from mlenergy.diffusion.errors import UserError
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
    joules_of,
    seconds_of,
)
from mlenergy.diffusion.studies.fit import PowerLaw, power_law
from mlenergy.diffusion.studies.outcome import Cell, Outcome
from mlenergy.diffusion.studies.study import Study, StudyOptions, Sweep, Sweeps

_QUICK_POINTS = 3
PUBLISHED = (
    "published for text-to-video models: quadratic in resolution and in length, linear in steps "
    "(Delavande, Pierrard, Luccioni 2025, Video Killed the Energy Budget, arXiv 2509.19222)"
)


@option_group("study")
@dataclass(frozen=True, kw_only=True)
class ScalingOptions(StudyOptions):
    """Seconds and joules an image over size and steps, with fitted exponents."""

    models: tuple[str, ...] = ("black-forest-labs/FLUX.1-dev",)
    """Models to measure."""
    sizes: Annotated[tuple[int, ...], PIXELS] = (512, 768, 1024, 1280, 1536)
    """Edges of square images, in pixels."""
    steps: Annotated[tuple[int, ...], Range(least=1, most=10_000)] = (5, 10, 20, 40)
    """Numbers of denoising steps."""
    at_steps: Annotated[int | None, Range(least=1, most=10_000)] = None
    """Steps of the images whose size varies. Default: each model's."""
    at_size: Annotated[int | None, PIXELS] = None
    """Edge of the images whose steps vary. Default: each model's."""
    iters: Annotated[int, ITERATIONS] = 4
    """Measured iterations of each run."""
    repeats: Annotated[int, Range(least=1, most=1000)] = 1
    """Times that each run is started anew."""


@dataclass(frozen=True)
class Dimension:
    """What is varied: its sweep, and the values of its x axis."""

    sweep: str
    title: str
    x_label: str
    x_of: Callable[[Cell], float | None]
    note: str = ""


def _pixels(cell: Cell) -> float | None:
    edges = cell.option("width"), cell.option("height")
    return float(edges[0] * edges[1]) if None not in edges else None


def _steps(cell: Cell) -> float | None:
    steps = cell.option("inference_steps")
    return None if steps is None else float(steps)


# A video's frames become a third line once there is a workload that has them.
DIMENSIONS = (
    Dimension(
        "size",
        "image size",
        "pixels of an image",
        _pixels,
        "Over the edge it is twice as large.",
    ),
    Dimension("steps", "steps", "denoising steps", _steps),
)
QUANTITIES: dict[str, tuple[str, Callable[[Cell], Measured | Gap]]] = {
    "time_per_image_s": ("seconds an image", seconds_of),
    "denoise_s": ("seconds of denoising", lambda cell: _denoising_of(cell)),
    "energy_per_image_j": ("joules an image", joules_of),
}


def sweeps(options: ScalingOptions) -> Sweeps:
    """Sizes at a number of steps, then steps at a size."""
    sizes, steps = sorted(set(options.sizes)), sorted(set(options.steps))
    if options.quick:
        sizes, steps = sizes[:_QUICK_POINTS], steps[:_QUICK_POINTS]
    if len(sizes) < 2 and len(steps) < 2:
        raise UserError("an exponent needs two or more --sizes or --steps; give more")
    base: dict[str, Any] = {"benchmark_iters": options.iters, "save_images": False}
    models = list(options.models)
    yield Sweep(
        "size",
        {
            "common": {**base, "inference_steps": options.at_steps},
            "grid": {"model_id": models, "height, width": [[edge, edge] for edge in sizes]},
            "repeats": options.repeats,
        },
    )
    yield Sweep(
        "steps",
        {
            "common": {**base, "height": options.at_size, "width": options.at_size},
            "grid": {"model_id": models, "inference_steps": steps},
            "repeats": options.repeats,
        },
    )


@dataclass(frozen=True)
class Fitted:
    """One quantity of one model over one dimension: points, and the fit or the reason against one."""

    dimension: Dimension
    model: str
    quantity: str
    points: list[Point]
    values: list[Measured]
    fit: PowerLaw | str

    @property
    def series(self) -> Series:
        """For a chart."""
        if isinstance(self.fit, str):
            return Series(self.model, self.points)
        xs = [point.x for point in self.points]
        label = f"{self.model}: exponent {exponent_text(self.fit)}"
        return Series(label, self.points, self.fit.line(min(xs), max(xs)))


def fits_of(outcome: Outcome, models: Sequence[str]) -> list[Fitted]:
    """Every fit of the study, in the order of dimensions, quantities and models."""
    found = []
    for dimension in DIMENSIONS:
        for quantity, (_, value_of) in QUANTITIES.items():
            for model in models:
                cells = [c for c in outcome.cells(dimension.sweep) if c.option("model_id") == model]
                values = [(dimension.x_of(cell), value_of(cell)) for cell in cells]
                known = [(x, y) for x, y in values if x is not None and isinstance(y, Measured)]
                points = [Point(x, y.value, y.low, y.high) for x, y in known]
                fit: PowerLaw | str = next((y.reason for _, y in values if isinstance(y, Gap)), "no run")
                if points:
                    fit = power_law([p.x for p in points], [p.y for p in points])
                found.append(Fitted(dimension, model, quantity, points, [y for _, y in known], fit))
    return found


def report(options: ScalingOptions, outcome: Outcome) -> Report:
    """Exponents, points with residuals, and a chart of each quantity over each dimension."""
    fits = fits_of(outcome, options.models)
    parts: list[Part] = [_exponents(fits), *_charts(fits), _residuals(fits), *_points(outcome)]
    return Report("Scaling over size and steps", list(_summary(fits)), parts)


def exponent_text(fit: PowerLaw) -> str:
    """The exponent with half its 95 % interval, where that is known."""
    half = fit.half_width
    return f"{fit.exponent:.3f}" if half is None else f"{fit.exponent:.3f} ± {half:.3f}"


def _summary(fits: Sequence[Fitted]) -> Iterator[str]:
    for one in fits:
        if one.quantity != "denoise_s" and isinstance(one.fit, PowerLaw):
            quantity, x_label = QUANTITIES[one.quantity][0], one.dimension.x_label
            known = (
                "" if one.fit.half_width is not None else ", from two points, which say nothing of its error"
            )
            yield f"{one.model}: {quantity} over {x_label}: exponent {exponent_text(one.fit)}{known}"
    yield PUBLISHED


def _exponents(fits: Sequence[Fitted]) -> Table:
    columns = (
        Column("model", "model"),
        Column("dimension", "over"),
        Column("quantity", "of"),
        Column("exponent", "exponent"),
        Column("standard_error", "standard error"),
        Column("points", "points"),
        Column("largest_residual_percent", "largest residual, %"),
    )
    rows: list[dict[str, Value]] = []
    for one in fits:
        fit = one.fit
        row: dict[str, Value] = {
            "model": one.model,
            "dimension": one.dimension.x_label,
            "quantity": QUANTITIES[one.quantity][0],
            "points": len(one.points),
        }
        if isinstance(fit, str):
            row |= dict.fromkeys(("exponent", "standard_error", "largest_residual_percent"), Gap(fit))
        else:
            half = fit.half_width
            low, high = (None, None) if half is None else (fit.exponent - half, fit.exponent + half)
            two_points = Gap("two points lie on a power law, whatever it is; measure more")
            doubts = tuple(dict.fromkeys(doubt for value in one.values for doubt in value.doubts))
            row["exponent"] = Measured(fit.exponent, low, high, doubts)
            row["standard_error"] = two_points if fit.error is None else fit.error
            row["largest_residual_percent"] = max(_residuals_of(one), key=abs)
        rows.append(row)
    note = (
        "y = a × x^b by least squares of the logarithms; ± is the 95 % interval of b. A residual is "
        "measured ÷ fitted - 1. Over the edge of an image the exponent is twice that over its pixels. What "
        "does not grow (text encoding over steps) makes an exponent smaller; denoising alone has none."
    )
    return Table("exponents", "Exponents", columns, rows, note)


def _residuals_of(fitted: Fitted) -> list[float]:
    """Measured ÷ fitted - 1 of each point, in percent; none without a fit."""
    if isinstance(fitted.fit, str):
        return []
    return [100 * (point.y / fitted.fit.at(point.x) - 1) for point in fitted.points]


def _charts(fits: Sequence[Fitted]) -> Iterator[Chart]:
    for dimension in DIMENSIONS:
        for quantity, (label, _) in QUANTITIES.items():
            own = [f for f in fits if f.dimension is dimension and f.quantity == quantity and f.points]
            if own and quantity != "denoise_s":
                title = f"{label[0].upper()}{label[1:]} over {dimension.title}"
                name = f"{quantity}_over_{dimension.sweep}"
                note = f"Both axes are logarithmic: a power law is a straight line. {dimension.note}"
                series = [one.series for one in own]
                yield Chart(name, title, dimension.x_label, label, series, log=True, note=note)


def _residuals(fits: Sequence[Fitted]) -> Table:
    keys = ("model", "dimension", "quantity", "x", "measured", "fitted", "residual_percent")
    rows: list[dict[str, Value]] = []
    for one in fits:
        if isinstance(one.fit, str):
            continue
        for point, residual in zip(one.points, _residuals_of(one), strict=True):
            fitted = one.fit.at(point.x)
            where = (one.model, one.dimension.x_label, QUANTITIES[one.quantity][0])
            measured = Measured(point.y, point.low, point.high)
            values: tuple[Value, ...] = (*where, point.x, measured, fitted, residual)
            rows.append(dict(zip(keys, values, strict=True)))
    labels = ("model", "over", "of", "x", "measured", "fitted", "measured ÷ fitted - 1, %")
    return Table("residuals", "Residuals", tuple(map(Column, keys, labels)), rows)


def _points(outcome: Outcome) -> Iterator[Table]:
    for dimension in DIMENSIONS:
        x = "pixels" if dimension.sweep == "size" else "steps"
        columns = (Column("model", "model"), Column(x, dimension.x_label), *FIGURE_COLUMNS)
        rows = [
            {
                "model": str(cell.option("model_id")),
                x: dimension.x_of(cell) or Gap("not set"),
                **figures_of(cell),
            }
            for cell in outcome.cells(dimension.sweep)
        ]
        yield Table(f"points_{dimension.sweep}", f"Runs over {dimension.title}", columns, rows)


def _denoising_of(cell: Cell) -> Measured | Gap:
    """Seconds of an iteration's denoising: mean of the repeats."""
    if cell.set_up is None:
        return Gap(cell.gap or "not measured")
    known = [one.denoise_mean_s for one in cell.set_up.starts if one.denoise_mean_s is not None]
    if not known:
        return Gap(cell.set_up.first.stages_reason or "not in this result")
    doubts = tuple(message for _, message in cell.set_up.doubts("seconds"))
    return Measured(sum(known) / len(known), doubts=doubts)


SCALING = Study("scaling", ScalingOptions, sweeps, report)
