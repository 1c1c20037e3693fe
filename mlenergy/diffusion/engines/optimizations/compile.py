"""torch.compile on a denoiser: whole, or its repeated blocks; and what compiling took."""

from __future__ import annotations

from typing import Any

import torch
from torch._dynamo.utils import calculate_time_spent, counters

from mlenergy.diffusion.config.optimizations import CompileMode
from mlenergy.diffusion.engines.optimizations.blocks import computing_blocks


class CompileWork:
    """Compiles when the denoiser first runs.

    regional: each repeated block by itself; blocks of one class share their code, which is
    compiled once. Forwards are replaced, not hooked, so that a cache's hook stays outside.
    """

    def __init__(self, denoiser: Any, mode: CompileMode) -> None:
        self._mode = mode
        self._regions = computing_blocks(denoiser) if mode == "regional" else [denoiser]
        for region in self._regions:
            region.forward = torch.compile(region.forward)
        self._compile_s: list[float] = []  # the process's total at the begin of each call
        self._graphs, self._breaks = _graphs(), _breaks()
        self._begin_s = _total_s()

    def begin_call(self) -> None:
        """Begin a generation."""
        self._compile_s.append(_total_s())

    def record(self, warmup_calls: int) -> dict[str, Any]:
        """Seconds of compiling in all and in the calls after warm-up; graphs and breaks between them."""
        now = _total_s()
        starts = [*self._compile_s, now]
        return {
            "mode": self._mode,
            "regions": len(self._regions),
            "compile_s": now - self._begin_s,
            "compile_in_windows_s": now - starts[min(warmup_calls, len(starts) - 1)],
            "graphs": _graphs() - self._graphs,
            "graph_breaks": _breaks() - self._breaks,
        }


def _total_s() -> float:
    """Seconds that torch has spent on compiling in this process, tracing and code generation."""
    return float(calculate_time_spent()["total_wall_time"])


def _graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def _breaks() -> int:
    return sum(counters["graph_break"].values())
