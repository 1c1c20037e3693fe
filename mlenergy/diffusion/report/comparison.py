"""Two or more sides compared: ratios of seconds and joules, and all in which the sides differ. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.report.set_ups import differences, text_of, value_of
from mlenergy.diffusion.results.ratio import Ratio, ratio_of
from mlenergy.diffusion.results.record import ResultRecord
from mlenergy.diffusion.results.repeats import SetUp
from mlenergy.diffusion.results.setup import digest

Compared = Literal["seconds", "joules"]
# More or less of each: what a user says of it.
MORE: dict[Compared, tuple[str, str]] = {"seconds": ("slower", "faster"), "joules": ("more", "less")}


@dataclass(frozen=True)
class Side:
    """The results that one word of the command line names."""

    name: str  # A, B, …
    word: str
    set_ups: Sequence[SetUp]


@dataclass(frozen=True)
class Pair:
    """A set-up of one side beside the base's."""

    base: Side
    other: Side
    of_base: SetUp
    of_other: SetUp

    def ratio(self, figure: Compared) -> Ratio | None:
        """Other ÷ base; None where one of them is not known."""
        if figure == "seconds":
            return ratio_of(self.of_other.seconds, self.of_base.seconds)
        one, two = self.of_other.joules, self.of_base.joules
        return None if one is None or two is None else ratio_of(one, two)

    def reason(self, figure: Compared) -> str:
        """The reason for which there is no ratio."""
        lacking = [
            f"{side.name}: {set_up.reasons[figure]}"
            for side, set_up in ((self.base, self.of_base), (self.other, self.of_other))
            if figure in set_up.reasons
        ]
        return "; ".join(lacking)

    def doubts(self, figure: Compared) -> list[tuple[str, str]]:
        """Warnings of either side that make the ratio doubtful."""
        return [*self.of_base.doubts(figure), *self.of_other.doubts(figure)]


@dataclass(frozen=True)
class Comparison:
    """Sides, their pairs, and what has no partner."""

    sides: Sequence[Side]
    pairs: Sequence[Pair]
    alone: Sequence[tuple[Side, SetUp]]  # set-ups that another side lacks
    others: Sequence[ResultRecord]  # what is no complete result

    @property
    def is_of_single_set_ups(self) -> bool:
        """True where each side is one set-up, whatever it is."""
        return all(len(side.set_ups) == 1 for side in self.sides)

    @cached_property
    def differing(self) -> dict[str, list[str]]:
        """Names that differ, as `configuration`, `hardware` and `versions`."""
        found: dict[str, dict[str, None]] = {"configuration": {}, "hardware": {}, "versions": {}}
        rows = [list({id(s): s for s in (pair.of_base, pair.of_other)}.values()) for pair in self.pairs]
        if self.is_of_single_set_ups:
            rows = [[side.set_ups[0] for side in self.sides]]
        for row in rows:
            for name in differences(row, all_of_them=True):
                found[_kind(row, name)][name] = None
        return {kind: list(names) for kind, names in found.items()}

    def value_texts(self, name: str) -> list[str]:
        """A column's values on each side, several where its set-ups have several."""
        return [
            " or ".join(dict.fromkeys(text_of(value_of(one, name)) for one in side.set_ups))
            for side in self.sides
        ]


def compare(sides: Sequence[tuple[str, Sequence[SetUp]]], others: Sequence[ResultRecord]) -> Comparison:
    """Pair what can be compared: the first side is the base.

    One side alone is taken apart into its set-ups. Sides of one set-up each are compared as they are;
    otherwise set-ups with equal settings are paired.

    Args:
        sides: word and set-ups of each.
        others: what is no complete result.

    Raises:
        UserError: there is nothing to compare, or a set-up has several partners.
    """
    named = _sides(sides)
    if all(len(side.set_ups) == 1 for side in named):
        base = named[0]
        for side in named[1:]:
            _check_units(base, side, base.set_ups[0], side.set_ups[0])
        pairs = [Pair(base, side, base.set_ups[0], side.set_ups[0]) for side in named[1:]]
        return Comparison(named, pairs, [], others)
    # A setting that an older version did not know is in none of its results.
    shared = set.intersection(*(set(one.settings) for side in named for one in side.set_ups))
    by_settings = [_by_settings(side, shared) for side in named]
    base, of_base = named[0], by_settings[0]
    pairs, alone = [], []
    for side, found in zip(named[1:], by_settings[1:], strict=True):
        pairs += [Pair(base, side, one, found[key]) for key, one in of_base.items() if key in found]
        alone += [(base, one) for key, one in of_base.items() if key not in found]
        alone += [(side, one) for key, one in found.items() if key not in of_base]
    if not pairs:
        raise UserError(
            f"{named[0].word} and {named[1].word} have no set-up in common, and one of them has several; "
            "name folders of one set-up each"
        )
    return Comparison(named, pairs, alone, others)


def _sides(sides: Sequence[tuple[str, Sequence[SetUp]]]) -> list[Side]:
    if len(sides) == 1:
        word, set_ups = sides[0]
        if len(set_ups) < 2:
            raise UserError(f"{word} has one set-up, which is compared with nothing; name another folder too")
        sides = [(one.first.path, [one]) for one in set_ups]
    return [Side(_letter(n), word, set_ups) for n, (word, set_ups) in enumerate(sides)]


def _check_units(base: Side, other: Side, one: SetUp, two: SetUp) -> None:
    if one.unit != two.unit:
        raise UserError(
            f"{base.word} made {one.unit.count} and {other.word} {two.unit.count}, which do not compare; "
            "name results of one kind"
        )


def _letter(number: int) -> str:
    """A to Z, then A1 to Z1 and so on."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number > 25 else "")


def _by_settings(side: Side, names: Collection[str]) -> dict[str, SetUp]:
    keys = [digest({name: one.settings[name] for name in names}) for one in side.set_ups]
    counts = Counter(keys)
    twice = next((one for one, key in zip(side.set_ups, keys, strict=True) if counts[key] > 1), None)
    if twice is not None:
        raise UserError(
            f"{side.word} has a set-up on several versions or machines ({twice.first.path}); "
            "name the folders of each apart"
        )
    return dict(zip(keys, side.set_ups, strict=True))


def _kind(set_ups: Sequence[SetUp], name: str) -> str:
    if name in ("device", "device_name") or any(name in one.hardware for one in set_ups):
        return "hardware"
    return "configuration" if any(name in one.settings for one in set_ups) else "versions"


def plain_ratio(ratio: Ratio | None) -> dict[str, Any]:
    """A ratio as plain data."""
    if ratio is None:
        return {"ratio": None, "ci95_low": None, "ci95_high": None, "difference_shown": None}
    return {
        "ratio": ratio.value,
        "ci95_low": ratio.low,
        "ci95_high": ratio.high,
        "difference_shown": ratio.shows_difference,
    }
