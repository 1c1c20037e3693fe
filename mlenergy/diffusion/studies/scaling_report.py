"""Report of the study `scaling`: power laws fitted to seconds and joules. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlenergy.diffusion.models.spec import Output
from mlenergy.diffusion.results.units import IMAGE, Unit
from mlenergy.diffusion.studies.content import (
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
    figure_columns,
    figures_of,
    joules_of,
    seconds_of,
)
from mlenergy.diffusion.studies.fit import PowerLaw, power_law
from mlenergy.diffusion.studies.outcome import Cell, Outcome

PUBLISHED = (
    "published for text-to-video models: quadratic in resolution and in length, linear in steps "
    "(Delavande, Pierrard, Luccioni 2025, Video Killed the Energy Budget, arXiv 2509.19222)"
)


@dataclass(frozen=True)
class Dimension:
    """What is varied: its sweep, and the values of its x axis."""

    sweep: str
    title: str
    x_label: str
    x_key: str  # of its column
    x_of: Callable[[Cell], float | None]
    note: str = ""


def _pixels(cell: Cell) -> float | None:
    edges = cell.option("width"), cell.option("height")
    return float(edges[0] * edges[1]) if None not in edges else None


def _steps(cell: Cell) -> float | None:
    steps = cell.option("inference_steps")
    return None if steps is None else float(steps)


def _frames(cell: Cell) -> float | None:
    frames = cell.option("num_frames")
    return None if frames is None else float(frames)


_STEPS = Dimension("steps", "steps", "denoising steps", "steps", _steps)
_EDGE = "Over the edge it is twice as large."
# A line for each sweep, by what the models make.
DIMENSIONS: Mapping[Output, tuple[Dimension, ...]] = {
    "image": (Dimension("size", "image size", "pixels of an image", "pixels", _pixels, _EDGE), _STEPS),
    "video": (
        Dimension("size", "frame size", "pixels of a frame", "pixels", _pixels, _EDGE),
        Dimension("frames", "frames", "frames of a video", "frames", _frames),
        _STEPS,
    ),
}


def quantities(unit: Unit) -> dict[str, tuple[str, Callable[[Cell], Measured | Gap]]]:
    """Fitted quantities by key, with what each is called."""
    return {
        unit.time: (f"seconds {unit.each}", seconds_of),
        "denoise_s": ("seconds of denoising", _denoising_of),
        unit.energy: (f"joules {unit.each}", joules_of),
    }


@dataclass(frozen=True)
class Fitted:
    """One quantity of one model over one dimension: points, and the fit or the reason against one."""

    dimension: Dimension
    model: str
    key: str
    quantity: str  # what the key's figure is called
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


def fits_of(outcome: Outcome, models: Sequence[str], unit: Unit) -> list[Fitted]:
    """Every fit of the study, in the order of dimensions, quantities and models."""
    found = []
    for dimension in DIMENSIONS[unit.name]:
        for key, (quantity, value_of) in quantities(unit).items():
            for model in models:
                cells = [c for c in outcome.cells(dimension.sweep) if c.option("model_id") == model]
                values = [(dimension.x_of(cell), value_of(cell)) for cell in cells]
                known = [(x, y) for x, y in values if x is not None and isinstance(y, Measured)]
                points = [Point(x, y.value, y.low, y.high) for x, y in known]
                fit: PowerLaw | str = next((y.reason for _, y in values if isinstance(y, Gap)), "no run")
                if points:
                    fit = power_law([p.x for p in points], [p.y for p in points])
                found.append(Fitted(dimension, model, key, quantity, points, [y for _, y in known], fit))
    return found


def report_on(models: Sequence[str], unit: Unit, outcome: Outcome) -> Report:
    """Exponents, points with residuals, and a chart of each quantity over each dimension.

    Args:
        models: ids, all of them making this.
        unit: image or video.
        outcome: the cells.
    """
    fits = fits_of(outcome, models, unit)
    tables = [_residuals(fits), *_points(outcome, unit)]
    parts: list[Part] = [_exponents(fits, unit), *_charts(fits, unit), *tables]
    over = "size and steps" if unit is IMAGE else "size, frames and steps"
    return Report(f"Scaling over {over}", list(_summary(fits)), parts)


def exponent_text(fit: PowerLaw) -> str:
    """The exponent with half its 95 % interval, where that is known."""
    half = fit.half_width
    return f"{fit.exponent:.3f}" if half is None else f"{fit.exponent:.3f} ± {half:.3f}"


def _summary(fits: Sequence[Fitted]) -> Iterator[str]:
    for one in fits:
        if one.key != "denoise_s" and isinstance(one.fit, PowerLaw):
            quantity, x_label = one.quantity, one.dimension.x_label
            known = (
                "" if one.fit.half_width is not None else ", from two points, which say nothing of its error"
            )
            yield f"{one.model}: {quantity} over {x_label}: exponent {exponent_text(one.fit)}{known}"
    yield PUBLISHED


def _exponents(fits: Sequence[Fitted], unit: Unit) -> Table:
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
            "quantity": one.quantity,
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
        "measured ÷ fitted - 1. Over the edge of "
        f"{'an image' if unit is IMAGE else 'a frame'} the exponent is twice that over its pixels. What does "
        " not grow (text encoding over steps) makes an exponent smaller; denoising alone has none."
    )
    return Table("exponents", "Exponents", columns, rows, note)


def _residuals_of(fitted: Fitted) -> list[float]:
    """Measured ÷ fitted - 1 of each point, in percent; none without a fit."""
    if isinstance(fitted.fit, str):
        return []
    return [100 * (point.y / fitted.fit.at(point.x) - 1) for point in fitted.points]


def _charts(fits: Sequence[Fitted], unit: Unit) -> Iterator[Chart]:
    for dimension in DIMENSIONS[unit.name]:
        for key, (label, _) in quantities(unit).items():
            own = [f for f in fits if f.dimension is dimension and f.key == key and f.points]
            if own and key != "denoise_s":
                title = f"{label[0].upper()}{label[1:]} over {dimension.title}"
                name = f"{key}_over_{dimension.sweep}"
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
            where = (one.model, one.dimension.x_label, one.quantity)
            measured = Measured(point.y, point.low, point.high)
            values: tuple[Value, ...] = (*where, point.x, measured, fitted, residual)
            rows.append(dict(zip(keys, values, strict=True)))
    labels = ("model", "over", "of", "x", "measured", "fitted", "measured ÷ fitted - 1, %")
    return Table("residuals", "Residuals", tuple(map(Column, keys, labels)), rows)


def _points(outcome: Outcome, unit: Unit) -> Iterator[Table]:
    for dimension in DIMENSIONS[unit.name]:
        x = dimension.x_key
        columns = (Column("model", "model"), Column(x, dimension.x_label), *figure_columns(unit))
        rows = [
            {
                "model": str(cell.option("model_id")),
                x: dimension.x_of(cell) or Gap("not set"),
                **figures_of(cell, unit),
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
