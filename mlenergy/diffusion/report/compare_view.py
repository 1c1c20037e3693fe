"""A comparison as text, Markdown or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlenergy.diffusion.report.comparison import MORE, Compared, Comparison, Pair, plain_ratio
from mlenergy.diffusion.report.lines import labelled, number, shown, title
from mlenergy.diffusion.report.model_table import OTHER_BASIS, ModelTable, model_table
from mlenergy.diffusion.report.quality_view import LABELS, value_text
from mlenergy.diffusion.report.set_ups import FIGURES_OF, common_text, difference_text, differences, value_of
from mlenergy.diffusion.report.show_view import Footnotes, figure_cells, headings, markdown_text, other_rows
from mlenergy.diffusion.results.ratio import Ratio
from mlenergy.diffusion.results.units import VIDEO

FIGURES_COMPARED: tuple[Compared, ...] = ("seconds", "joules")
NO_DIFFERENCE = "no difference shown"
Rows = list[list[str]]


def print_comparison(comparison: Comparison, console: Console) -> None:
    """For a terminal or a pipe; only tables are broken to fit."""
    notes = Footnotes()
    set_ups = [one for side in comparison.sides for one in side.set_ups]
    console.print(title(_heading(comparison)), soft_wrap=True)
    if comparison.is_of_single_set_ups:
        console.print(_table(*_side_rows(comparison, notes), left=(0, 6), folded=(6,)))
        console.print()
    console.print(_table(*_ratio_rows(comparison, notes), left=(0, 1, 4), folded=(0, 4)))
    lines = [*_quality_rows(comparison), *_difference_rows(comparison), *_caution_rows(comparison)]
    models = models_of(comparison)
    if models is not None:
        console.print()
        console.print(_table(["", *models.models], [list(row) for row in models.rows], folded=(1, 2)))
        winners = _winner_rows(comparison, models, notes)
        for line in labelled([*winners, *(("", note) for note in models.notes)], width=19):
            console.print(line, soft_wrap=True)
    console.print()
    for line in labelled([("all", common_text(set_ups)), *lines]):
        console.print(line, soft_wrap=True)
    for line in labelled(notes.rows(), "yellow"):
        console.print(line, soft_wrap=True)
    for line in labelled(other_rows(comparison.others)):
        console.print(line, soft_wrap=True)


def markdown(comparison: Comparison) -> str:
    """Tables of Markdown with their notes below."""
    notes = Footnotes()
    parts = []
    if comparison.is_of_single_set_ups:
        parts.append(_markdown_table(*_side_rows(comparison, notes)))
    parts.append(_markdown_table(*_ratio_rows(comparison, notes)))
    models = models_of(comparison)
    below: list[tuple[str, str]] = []
    if models is not None:
        parts.append(_markdown_table(["", *models.models], [list(row) for row in models.rows]))
        below += [(f"**{name}:**", value) for name, value in _winner_rows(comparison, models, notes)]
        below += [("", note) for note in models.notes]
    below += [*_quality_rows(comparison), *_difference_rows(comparison), *_caution_rows(comparison)]
    below += notes.rows()
    below += other_rows(comparison.others)
    lines = [f"{markdown_text(f'{name} {value}'.strip())}  \n" for name, value in below]
    return "\n".join([*parts, "".join(lines)])


def json_text(comparison: Comparison, exceeded: Sequence[str]) -> str:
    """JSON with numbers in full."""
    models = models_of(comparison)
    content = {
        "sides": [
            {
                "name": side.name,
                "word": side.word,
                "set_ups": [
                    {
                        **{name: value(one) for name, value in FIGURES_OF[one.unit].items()},
                        "warnings": [{"code": code, "message": message} for code, message in one.warnings],
                        "reasons": one.reasons,
                        "results": [start.path for start in one.starts],
                    }
                    for one in side.set_ups
                ],
            }
            for side in comparison.sides
        ],
        "ratios": [_plain_pair(pair, figure) for pair in comparison.pairs for figure in FIGURES_COMPARED],
        "differences": {
            kind: {name: comparison.value_texts(name) for name in names}
            for kind, names in comparison.differing.items()
        },
        "only_in": [{"side": side.name, "result": one.first.path} for side, one in comparison.alone],
        "quality": [text for _, text in _quality_rows(comparison)],
        "cautions": [text for _, text in _caution_rows(comparison)],
        "models": None if models is None else asdict(models),
        "exceeded": list(exceeded),
        "not_shown": [{"state": o.state, "path": o.path, "reason": o.reason} for o in comparison.others],
    }
    return json.dumps(content, indent=2, ensure_ascii=True) + "\n"


def models_of(comparison: Comparison) -> ModelTable | None:
    """The table of two models, where two different ones are compared."""
    if not comparison.is_of_single_set_ups or len(comparison.pairs) != 1:
        return None
    pair = comparison.pairs[0]
    same = pair.of_base.first.model_id == pair.of_other.first.model_id
    return None if same else model_table(pair)


def verdict(ratio: Ratio, figure: Compared) -> str:
    """A ratio in words: how much more or less, or that no difference is shown."""
    if ratio.shows_difference is False:
        return NO_DIFFERENCE
    more, less = MORE[figure]
    if ratio.value == 1:
        return "equal"
    change = f"{number(float(f'{abs(ratio.value - 1) * 100:.3g}'))} % {more if ratio.value > 1 else less}"
    return change if ratio.shows_difference else f"{change} in the mean; one iteration has no interval"


def interval_text(ratio: Ratio) -> str:
    """The interval in words, a dash where there is none."""
    return "–" if ratio.low is None or ratio.high is None else f"{number(ratio.low)} to {number(ratio.high)}"


def _heading(comparison: Comparison) -> str:
    sides = ", ".join(f"{side.name} = {side.word}" for side in comparison.sides)
    return f"{comparison.sides[0].name} is the base: {sides}"


def _side_rows(comparison: Comparison, notes: Footnotes) -> tuple[list[str], Rows]:
    all_ = [side.set_ups[0] for side in comparison.sides]
    differing = differences(all_)[:6]
    names = ["", *(heading for heading, _ in headings(all_[0].unit)), "starts", "set-up"]
    rows = [
        [side.name, *figure_cells(one, notes), str(len(one.starts)), difference_text(one, differing)]
        for side, one in zip(comparison.sides, all_, strict=True)
    ]
    return (names, rows) if differing else (names[:-1], [row[:-1] for row in rows])


def _ratio_rows(comparison: Comparison, notes: Footnotes) -> tuple[list[str], Rows]:
    names = ["", "", "ratio", "95 % interval", ""]
    single = comparison.is_of_single_set_ups
    labels = differences([pair.of_base for pair in comparison.pairs])
    rows = []
    for pair in comparison.pairs:
        sides = f"{pair.other.name} ÷ {pair.base.name}"
        label = sides if single else f"{sides}: {difference_text(pair.of_base, labels)}".removesuffix(": ")
        for figure in FIGURES_COMPARED:
            ratio, name = pair.ratio(figure), f"{figure} {pair.of_base.unit.each}"
            if ratio is None:
                rows.append([label, name, "–", "–", f"not known: {pair.reason(figure)}"])
            else:
                said = verdict(ratio, figure) + notes.mark(pair.doubts(figure))
                rows.append([label, name, number(ratio.value), interval_text(ratio), said])
            label = ""
    return names, rows


def _quality_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """A line for each metric that mlenergy quality has computed of one of the sides."""
    if not comparison.is_of_single_set_ups:
        return []
    sides = [(side.name, side.set_ups[0]) for side in comparison.sides]
    rows = []
    for metric, label in LABELS.items():
        values = {name: value_of(set_up, metric) for name, set_up in sides}
        if all(value is None for value in values.values()):
            continue
        text = ", ".join(f"{name} {_quality_text(metric, value)}" for name, value in values.items())
        if (
            metric == "fid"
            and len({start.fid_basis for _, one in sides for start in one.starts if start.fid}) > 1
        ):
            text += f": {OTHER_BASIS}, so they do not compare"
        rows.append(("quality", f"{label}: {text}"))
    return rows


def _quality_text(metric: str, value: Any) -> str:
    return value_text(metric, value) if isinstance(value, float) else "not known"


def _difference_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """A line for each setting, part of hardware and version that differs; a line where none does."""
    names = [side.name for side in comparison.sides]
    rows = []
    for kind, differing in comparison.differing.items():
        for column in differing:
            values = zip(names, comparison.value_texts(column), strict=True)
            rows.append((kind, f"{column}: " + ", ".join(f"{name} {value}" for name, value in values)))
        if not differing:
            rows.append((kind, "no difference"))
    return rows


def _caution_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """Lines on what a reader must know before quoting a ratio."""
    rows = []
    if comparison.differing["hardware"]:
        rows.append(("caution", "the hardware differs: the ratios are those of the machines too"))
    for side in comparison.sides:
        doubts: Counter[str] = Counter()
        for pair in comparison.pairs:
            of_side = pair.of_base if side is pair.base else pair.of_other if side is pair.other else None
            codes = {c for f in FIGURES_COMPARED for c, _ in of_side.doubts(f)} if of_side else set()
            doubts.update(codes)
        if doubts:
            rows.append(("caution", f"{side.name} has doubtful numbers: {', '.join(doubts)}"))
    sizes = ("num_frames", "fps", "width_px", "height_px")
    other = [name for name in sizes if name in comparison.differing["configuration"]]
    if other and any(pair.of_base.unit == VIDEO for pair in comparison.pairs):
        rows.append(("caution", "the videos differ in length or size: the ratios are those of the work too"))
    once = [side.name for side in comparison.sides if any(len(one.starts) == 1 for one in side.set_ups)]
    if once:
        rows.append(
            ("caution", f"one start of {', '.join(once)}: its interval does not know how much starts differ")
        )
    for side in comparison.sides:
        count = sum(one is side for one, _ in comparison.alone)
        if count:
            rows.append(("alone", f"{count} set-ups of {side.name} have no partner"))
    counts = Counter(
        verdict(ratio, "seconds").split()[-1]
        for pair in comparison.pairs
        if (ratio := pair.ratio("seconds")) is not None and ratio.shows_difference is not None
    )
    if not comparison.is_of_single_set_ups:
        said = {"slower": "slower", "faster": "faster", "shown": "without a difference shown"}
        text = ", ".join(f"{counts[word]} {what}" for word, what in said.items() if counts[word])
        rows.append(("in all", f"{len(comparison.pairs)} pairs: {text or 'none has an interval'}"))
    return rows


def _plain_pair(pair: Pair, figure: Compared) -> dict[str, Any]:
    ratio = pair.ratio(figure)
    return {
        "side": pair.other.name,
        "base": pair.base.name,
        "figure": f"{figure}_per_{pair.of_base.unit.name}",
        "result": pair.of_other.first.path,
        "base_result": pair.of_base.first.path,
        **plain_ratio(ratio),
        "reason": pair.reason(figure) if ratio is None else None,
        "doubts": sorted({code for code, _ in pair.doubts(figure)}),
    }


def _winner_rows(comparison: Comparison, models: ModelTable, notes: Footnotes) -> list[tuple[str, str]]:
    """The winners, each marked where a number that decides it is doubtful."""
    figures: dict[str, Compared] = {"Speed Winner": "seconds", "Efficiency Winner": "seconds"}
    figures["Energy Winner"] = "joules"
    pair = comparison.pairs[0]
    return [
        (name, text + (notes.mark(pair.doubts(figures[name])) if name in figures else ""))
        for name, text in models.winners
    ]


def _table(
    headings: Sequence[str], rows: Rows, left: Sequence[int] = (0,), folded: Sequence[int] = ()
) -> Table:
    """Columns by number: those at the left edge, and those that are broken to fit."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, heading in enumerate(headings):
        table.add_column(
            shown(heading),
            justify="left" if column in left else "right",
            no_wrap=column not in folded,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    return table


def _markdown_table(headings: Sequence[str], rows: Rows) -> str:
    lines = [list(headings), ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(map(markdown_text, line))} |\n" for line in lines)
