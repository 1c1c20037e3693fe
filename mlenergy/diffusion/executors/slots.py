"""The GPUs of this machine, given to runs and taken back."""

from __future__ import annotations

from collections.abc import Sequence


class Slots:
    """Places for processes. On GPUs a place is a GPU; on a CPU it has no name.

    Args:
        gpus: names for CUDA_VISIBLE_DEVICES.
        unnamed: places on a CPU, where there are no GPUs.
        alone: give places only while no other run holds any.
    """

    def __init__(self, gpus: Sequence[str] = (), unnamed: int = 0, alone: bool = False) -> None:
        self._free = list(gpus) if gpus else [""] * unnamed
        self._order = {gpu: place for place, gpu in enumerate(self._free)}
        self._alone = alone
        self.total = len(self._free)
        self.described = f"{self.total} GPUs" if gpus else f"{self.total} slots"

    def take(self, count: int) -> tuple[str, ...] | None:
        """The first `count` free places, or None where there are not so many."""
        if count > len(self._free) or (self._alone and len(self._free) < self.total):
            return None
        taken, self._free = self._free[:count], self._free[count:]
        return tuple(taken)

    def give_back(self, places: Sequence[str]) -> None:
        """Free places again; they keep their order, so that neighbours stay together."""
        self._free = sorted([*self._free, *places], key=lambda place: self._order.get(place, 0))
