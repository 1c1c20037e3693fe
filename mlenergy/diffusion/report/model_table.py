"""Two models side by side: size, inference time, throughput and FID, then the winners. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlenergy.diffusion.report.comparison import Pair
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.results.ratio import Ratio
from mlenergy.diffusion.results.repeats import SetUp

UNKNOWN = "–"
OTHER_BASIS = "the FIDs are of other references, networks or numbers of images"
_MILLION = 1e6


@dataclass(frozen=True)
class ModelTable:
    """Heading, rows of two values, and lines that name the winners."""

    models: tuple[str, str]
    rows: list[tuple[str, str, str]]
    winners: list[tuple[str, str]]
    notes: list[str]


def model_table(pair: Pair) -> ModelTable:
    """The table for two set-ups of different models.

    An inference is one image or video: the time of a batch over its outputs. Times are over all iterations.
    """
    one, two = pair.of_base, pair.of_other
    unit = one.unit
    rows = [
        (name.format(outputs=unit.count), _text(value(one)), _text(value(two)))
        for name, value in _ROWS.items()
    ]
    names = (_short(one), _short(two))
    winners = [
        ("Speed Winner", _speed(pair, names)),
        ("Quality Winner", _quality(one, two, names)),
        ("Efficiency Winner", _efficiency(pair, names)),
        ("Energy Winner", _energy(pair, names)),
    ]
    notes = [f"An inference is one {unit.name}: the time of a batch over its {unit.count}."]
    if "class" in {one.first.conditioning, two.first.conditioning}:
        notes.append(
            "A class-conditional model draws one of its classes, a text-conditional one reads a prompt."
        )
    return ModelTable((_heading(one), _heading(two)), rows, winners, notes)


_ROWS: dict[str, Callable[[SetUp], float | None]] = {
    "Model Size (M params)": lambda s: None if (n := s.first.parameters_count) is None else n / _MILLION,
    "Avg Inference Time (s)": lambda s: s.seconds.mean,
    "Std Inference Time (s)": lambda s: s.iteration_stdev_s,
    "Min Inference Time (s)": lambda s: None if (ends := s.iteration_range_s) is None else ends[0],
    "Max Inference Time (s)": lambda s: None if (ends := s.iteration_range_s) is None else ends[1],
    "Throughput ({outputs}/sec)": lambda s: s.outputs_per_s,
    "FID Score (lower = better)": lambda s: _fid(s),
}


def _fid(set_up: SetUp) -> float | None:
    known = [one.fid for one in set_up.starts if one.fid is not None]
    return sum(known) / len(known) if len(known) == len(set_up.starts) else None


def _text(value: float | None) -> str:
    return UNKNOWN if value is None else number(value)


def _short(set_up: SetUp) -> str:
    return str(set_up.first.model_id)


def _heading(set_up: SetUp) -> str:
    kind = set_up.first.conditioning
    return f"{_short(set_up)} ({f'{kind}-conditional' if kind else 'conditioning not known'})"


def _speed(pair: Pair, names: tuple[str, str]) -> str:
    ratio = pair.ratio("seconds")
    assert ratio is not None
    return _winner(ratio, names, "{}× faster")


def _energy(pair: Pair, names: tuple[str, str]) -> str:
    ratio = pair.ratio("joules")
    if ratio is None:
        return f"not known: {pair.reason('joules')}"
    return _winner(ratio, names, "{}× less energy")


def _efficiency(pair: Pair, names: tuple[str, str]) -> str:
    one, two = pair.of_base.first.parameters_count, pair.of_other.first.parameters_count
    ratio = pair.ratio("seconds")
    if not one or not two or ratio is None:
        return "not known: the number of parameters of one of the models is not"
    # Throughput per parameter is 1 ÷ (seconds × parameters).
    return _winner(ratio.times(two / one), names, "throughput per parameter, {}× more efficient")


def _quality(one: SetUp, two: SetUp, names: tuple[str, str]) -> str:
    scores = _fid(one), _fid(two)
    if scores[0] is None or scores[1] is None:
        lacking = one if scores[0] is None else two
        return f"not known: {lacking.first.fid_reason}"
    if len({start.fid_basis for start in (*one.starts, *two.starts)}) > 1:
        return f"not known: {OTHER_BASIS}"
    difference = scores[1] - scores[0]
    if difference == 0:
        return "none: the same FID"
    return f"{names[0] if difference > 0 else names[1]} (FID lower by {number(abs(difference))})"


def _winner(ratio: Ratio, names: tuple[str, str], text: str) -> str:
    """The side with less of what the ratio (second ÷ first) counts; none where no difference is shown."""
    if ratio.shows_difference is False:
        return "none: no difference shown"
    first_wins = ratio.value > 1
    factor = ratio if first_wins else ratio.inverse()
    unsure = "" if ratio.shows_difference else "; without an interval"
    return f"{names[0] if first_wins else names[1]} ({text.format(number(factor.value))}{unsure})"
