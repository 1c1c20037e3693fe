"""Values that any rank can leave for the others, also while its main thread is stuck."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

from mlenergy.diffusion.distributed.cluster import Rank

_PREFIX = "mlenergy/"
_LOST_AFTER = 4  # reads; the watch over a run makes a few a second


class Store:
    """torchrun's key-value store through a connection of its own.

    The process group's connection cannot be used: a main thread that waits in it holds it. Without
    torchrun there is one process, and the store is a dictionary.
    """

    def __init__(self, rank: Rank) -> None:
        self._own: dict[str, str] = {}
        self._store: Any = None
        self._failures = 0  # reads in a row without an answer
        if rank.launched:
            import torch.distributed as dist

            self._store = dist.TCPStore(  # type: ignore[attr-defined]  # real, but missing in torch's stubs
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                is_master=False,
                wait_for_workers=False,
                timeout=timedelta(seconds=30),
            )

    def set_once(self, key: str, value: Any) -> bool:
        """Set a key unless another rank was first; returns whether this rank's value stands."""
        text = json.dumps(value)
        if self._store is None:
            return self._own.setdefault(key, text) is text
        try:
            return bool(self._store.add(f"{_PREFIX}{key}/claims", 1) == 1) and self._set(key, text)
        except RuntimeError:  # the store ended with its host
            return True

    def read(self, key: str) -> Any:
        """The value under a key, None where it is not set, or the store no longer exists."""
        if self._store is None:
            return json.loads(self._own[key]) if key in self._own else None
        try:
            full = _PREFIX + key
            value = json.loads(self._store.get(full)) if self._store.check([full]) else None
        except RuntimeError:
            self._failures += 1
            return None
        self._failures = 0
        return value

    @property
    def is_lost(self) -> bool:
        """True where the store has stopped answering: its host, torchrun on the first node, has ended."""
        return self._failures >= _LOST_AFTER

    def _set(self, key: str, text: str) -> bool:
        self._store.set(_PREFIX + key, text)
        return True
