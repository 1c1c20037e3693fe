"""Replacing one attribute of a class or a module, or one entry of a table, and putting the old one back."""

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
    attribute: Any
    replacement: Callable[[Any], Any]

    def apply(self) -> Callable[[], None]:
        """Replace the attribute; the returned function puts the original back."""
        original = self.current()
        self._put(self.replacement(original))
        return lambda: self._put(original)

    def current(self) -> Any:
        """The value that is there now."""
        return vars(self.owner).get(self.attribute, ABSENT)

    def _put(self, value: Any) -> None:
        if value is ABSENT:
            delattr(self.owner, self.attribute)
        else:
            setattr(self.owner, self.attribute, value)


class ItemPatch(Patch):
    """One entry of a dictionary, ``owner[attribute]``, which is there before."""

    def current(self) -> Any:
        """The value that is there now."""
        return self.owner[self.attribute]

    def _put(self, value: Any) -> None:
        self.owner[self.attribute] = value
