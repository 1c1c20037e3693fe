"""An exception as the record that status.json keeps."""

from __future__ import annotations

import traceback
from typing import Any

from mlenergy.diffusion.supervision.out_of_memory import OutOfMemory


def describe(error: BaseException, rank: int) -> dict[str, Any]:
    """The failed rank, its message, traceback and memory figures (None where memory is not the matter)."""
    return {
        "rank": rank,
        "message": " ".join(str(error).split()) or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
        "memory": error.record() if isinstance(error, OutOfMemory) else None,
    }
