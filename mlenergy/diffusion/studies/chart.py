"""A chart as inline SVG: axes with round numbers, points with their intervals, fitted lines, a legend."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence

from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.studies.content import Chart, Series

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 20, 16, 52
_COLORS = 8
_LEGEND_ROW = 18


class Axis:
    """A linear or logarithmic axis from data to pixels, with its marks."""

    def __init__(self, values: Sequence[float], begin: float, end: float, log: bool) -> None:
        self.log = log
        low, high = min(values), max(values)
        if log:
            low, high = low / 1.15, high * 1.15
        else:
            low, high = min(0.0, low), high * 1.06 or 1.0
        self._low, self._high = self._scale(low), self._scale(high)
        self._begin, self._end = begin, end
        self.marks = [m for m in (_log_marks(low, high) if log else _marks(low, high)) if low <= m <= high]

    def at(self, value: float) -> float:
        """The pixel of a value; what lies below the axis is drawn at its end, as 0 on a logarithmic one."""
        share = 0.0
        if value > 0 or not self.log:
            share = max(0.0, (self._scale(value) - self._low) / (self._high - self._low))
        return round(self._begin + share * (self._end - self._begin), 1)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value


def chart_svg(chart: Chart) -> str:
    """The chart; a sentence where it has no point."""
    points = [point for series in chart.series for point in series.points]
    if not points:
        return "<p>Nothing was measured for this chart.</p>"
    height = _HEIGHT + _LEGEND_ROW * len(chart.series)
    ys = [y for p in points for y in (p.y, p.low, p.high) if y is not None and (y > 0 or not chart.log)]
    lines = [point for series in chart.series for point in series.line]
    x = Axis([p.x for p in points] + [one for one, _ in lines], _LEFT, _WIDTH - _RIGHT, chart.log)
    y = Axis([*ys, *(one for _, one in lines)], _HEIGHT - _BOTTOM, _TOP, chart.log)
    drawn = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" '
        f'aria-label="{html.escape(chart.title)}">',
        *_axes(chart, x, y),
    ]
    for index, series in enumerate(chart.series):
        drawn += [f'<g class="s{index % _COLORS}">', *_series(series, x, y), "</g>"]
        drawn += _legend(series, index)
    return "\n".join([*drawn, "</svg>"])


def _axes(chart: Chart, x: Axis, y: Axis) -> Iterator[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for mark in x.marks:
        at = x.at(mark)
        yield f'<line class="gridline" x1="{at}" y1="{_TOP}" x2="{at}" y2="{bottom}"/>'
        yield f'<text class="soft" x="{at}" y="{bottom + 18}" text-anchor="middle">{number(mark)}</text>'
    for mark in y.marks:
        at = y.at(mark)
        yield f'<line class="gridline" x1="{_LEFT}" y1="{at}" x2="{right}" y2="{at}"/>'
        yield f'<text class="soft" x="{_LEFT - 8}" y="{at + 4}" text-anchor="end">{number(mark)}</text>'
    yield f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
    yield f'<line class="axis" x1="{_LEFT}" y1="{_TOP}" x2="{_LEFT}" y2="{bottom}"/>'
    middle_x, middle_y = (_LEFT + right) / 2, (_TOP + bottom) / 2
    yield f'<text x="{middle_x}" y="{bottom + 40}" text-anchor="middle">{html.escape(chart.x_label)}</text>'
    yield (
        f'<text x="16" y="{middle_y}" text-anchor="middle" transform="rotate(-90 16 {middle_y})">'
        f"{html.escape(chart.y_label)}</text>"
    )


def _series(series: Series, x: Axis, y: Axis) -> Iterator[str]:
    if series.line:
        yield _path([(x.at(a), y.at(b)) for a, b in series.line], "fit")
    if series.joined:
        yield _path([(x.at(p.x), y.at(p.y)) for p in series.points], "joined")
    for point in series.points:
        at_x, at_y = x.at(point.x), y.at(point.y)
        if point.low is not None and point.high is not None:
            low, high = y.at(point.low), y.at(point.high)
            yield f'<line class="bar" x1="{at_x}" y1="{low}" x2="{at_x}" y2="{high}"/>'
        label = html.escape(point.label or f"{number(point.x)}: {number(point.y)}")
        yield f'<circle class="marker" cx="{at_x}" cy="{at_y}" r="4"><title>{label}</title></circle>'


def _path(points: Sequence[tuple[float, float]], name: str) -> str:
    return f'<polyline class="{name}" points="{" ".join(f"{a},{b}" for a, b in points)}"/>'


def _legend(series: Series, index: int) -> Iterator[str]:
    y = _HEIGHT + _LEGEND_ROW * index + 6
    yield f'<g class="s{index % _COLORS}"><circle class="marker" cx="{_LEFT + 6}" cy="{y}" r="4"/></g>'
    yield f'<text x="{_LEFT + 18}" y="{y + 4}">{html.escape(series.label)}</text>'


def _marks(low: float, high: float) -> list[float]:
    """About five round numbers over a span."""
    size = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(size))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= size)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step) + 1)]


def _log_marks(low: float, high: float) -> list[float]:
    """Powers of ten with 2 and 5 between them; of wide spans the powers alone, of narrow ones all digits."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = math.log10(high / low)
    digits = (1,) if decades > 4 else (1, 2, 5) if decades > 0.8 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    return [digit * 10.0**power for power in powers for digit in digits]
