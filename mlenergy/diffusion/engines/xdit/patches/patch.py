"""Replacing one attribute of a class or a module, and putting the old one back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ABSENT: Any = object()  # the attribute was not there before


@dataclass(frozen=True)
class Patch:
    """One attribute and what takes its place.

    replacement: is given the original (ABSENT where there is none) and returns the new value.
    """

    owner: Any
    attribute: str
    replacement: Callable[[Any], Any]

    def apply(self) -> Callable[[], None]:
        """Replace the attribute; the returned function puts the original back."""
        original = vars(self.owner).get(self.attribute, ABSENT)
        setattr(self.owner, self.attribute, self.replacement(original))

        def revert() -> None:
            if original is ABSENT:
                delattr(self.owner, self.attribute)
            else:
                setattr(self.owner, self.attribute, original)

        return revert
