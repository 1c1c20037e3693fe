"""An option of a command line: what follows its name, and the values that it takes."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from mlenergy.diffusion.errors import UserError

_SHOWN = 60  # characters of a value that is refused
YEAR_S = 365 * 24 * 3600.0


@dataclass(frozen=True)
class Range:
    """Numbers that an option takes, as metadata of its type. NaN and infinities are never in it."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    example: str = ""  # a usual value, with what it means

    def fault(self, value: float) -> str | None:
        """The reason why a number is refused, with what to use; None where it is in the range."""
        if self.least is not None and value < self.least:
            return f"is too small; use {self.least:.15g} or more"
        if self.above is not None and value <= self.above:
            return f"is too small; use a number above {self.above:.15g}{self._example}"
        if self.most is not None and value > self.most:
            return f"is too large; use {_number(self.most)} or less"
        if self.below is not None and value >= self.below:
            return f"is too large; use a number below {self.below:.15g}{self._example}"
        return None

    @property
    def _example(self) -> str:
        return f", such as {self.example}" if self.example else ""


@dataclass(frozen=True)
class MayBeEmpty:
    """Metadata of an option whose empty text means something else than leaving it out."""


@dataclass(frozen=True)
class Option:
    """An option by its full name, such as `workload.batch_size`, and what follows it on a command line."""

    name: str
    value_type: Any  # of each value: int, float, str, Path, a Literal; bool for a flag
    takes: Literal["no value", "one value", "values"]
    default: Any  # MISSING: the option has to be given
    appends: bool = False  # given several times, it keeps all values; else the last ones count
    numbers: Range | None = None
    may_be_empty: bool = False

    @property
    def negation(self) -> str:
        """The name that turns a flag off."""
        group, dot, own = self.name.rpartition(".")
        return f"{group}{dot}no_{own}"

    def value_of(self, text: str) -> Any:
        """The value that a word stands for.

        Raises:
            UserError: what the option takes instead.
        """
        if typing.get_origin(self.value_type) is Literal:
            return self._choice(text)
        if self.value_type in (int, float):
            return self._number(text)
        fault = text_fault(text)
        if fault is None and not text.strip() and not (self.may_be_empty or self.default == ""):
            fault = "is empty; give it a value, or leave the option out"
        if fault is not None:
            raise UserError(f"--{self.name} {shown(text)} {fault}")
        return self.value_type(text)

    def _choice(self, text: str) -> str:
        choices = [str(choice) for choice in typing.get_args(self.value_type)]
        if text not in choices:
            meant = nearest(text, choices)
            suggestion = f"; did you mean {meant}?" if meant else ""
            known = ", ".join(choices)
            name = self.name if self.name.isupper() else f"--{self.name}"  # a positional has no dashes
            raise UserError(f"{name} takes one of {known}, not {shown(text)}{suggestion}")
        return text

    def _number(self, text: str) -> float:
        kind = "a whole number" if self.value_type is int else "a number"
        try:
            value: float = self.value_type(text)
        except ValueError:
            raise UserError(f"--{self.name} takes {kind}, not {shown(text)}") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{self.name} takes a finite number, not {shown(text)}")
        fault = None if self.numbers is None else self.numbers.fault(value)
        if fault is not None:
            raise UserError(f"--{self.name} {shown(text, quoted=False)} {fault}")
        return value


def text_fault(text: str) -> str | None:
    """The reason why no file can be named by a text, or hold it; None where it is in order."""
    if "\0" in text:
        return "holds a NUL character; remove it"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "holds a character that UTF-8 cannot write (half of a surrogate pair); remove it"
    return None


def shown(text: str, quoted: bool = True) -> str:
    """A refused value for a message: escaped, and not longer than a line."""
    short = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return repr(short) if quoted else short


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    return next(iter(get_close_matches(name, [*known], 1)), None)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.15g}"
