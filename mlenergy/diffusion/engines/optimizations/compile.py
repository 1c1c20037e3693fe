"""torch.compile on a denoiser (whole, or its repeated blocks) and on other parts; and what compiling took."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._dynamo import convert_frame, exc
from torch._dynamo.utils import calculate_time_spent, counters
from torch.utils import _pytree

from mlenergy.diffusion.config.optimizations import CUDA_GRAPH_MODES, CompileMode, Optimizations
from mlenergy.diffusion.engines.optimizations.blocks import computing_blocks
from mlenergy.diffusion.engines.optimizations.compile_cache import CompileCache
from mlenergy.diffusion.errors import UserError


class CompileWork:
    """Compiles when each part first runs.

    A regional denoiser has each repeated block compiled by itself; blocks of one class share their code,
    which is compiled once. Forwards are replaced, not hooked, so that a cache's hook stays outside.

    Args:
        optimizations: how to compile.
        device_name: part of the name of the folder that compiled code is kept in.
        denoisers: name -> one that is compiled where the optimizations say so; a pipeline may have two, for
            high and low noise.
        others: name -> module that is compiled as a whole.
    """

    def __init__(
        self,
        optimizations: Optimizations,
        device_name: str,
        denoisers: Mapping[str, Any],
        others: Mapping[str, torch.nn.Module] | None = None,
    ) -> None:
        self._optimizations = optimizations
        self._cache = CompileCache(device_name, is_kept=optimizations.compile_cache)
        mode = optimizations.compile_mode
        regions: dict[str, list[Any]] = {}
        if mode is not None:
            regions = {name: regions_of(denoiser, mode) for name, denoiser in denoisers.items()}
        self._regions = {name: len(own) for name, own in regions.items()}
        own = compile_arguments(optimizations)
        self._arguments: dict[str, Any] = own
        for region in (region for own in regions.values() for region in own):
            region.forward = torch.compile(region.forward, **own)
            if optimizations.inductor_mode in CUDA_GRAPH_MODES:
                region.forward = _with_own_outputs(region.forward)
            if optimizations.compile_fullgraph:
                region.forward = _in_one_graph(region.forward)
        self._others = dict.fromkeys(others or {}, 0)  # graphs of each
        whole = compile_arguments(optimizations, is_denoiser=False)
        for name, part in (others or {}).items():
            part.forward = self._counted(name, torch.compile(part.forward, **whole))
        self._compile_s: list[float] = []  # the process's total at the begin of each call
        self._begin = {name: count() for name, count in _COUNTS.items()}
        self._begin_s = _total_s()

    def begin_call(self) -> None:
        """Begin a generation."""
        self._compile_s.append(_total_s())

    def record(self, warmup_calls: int) -> dict[str, Any]:
        """Seconds of compiling in all and in the calls after warm-up; graphs and breaks between them."""
        now = _total_s()
        starts = [*self._compile_s, now]
        counts = {name: count() - self._begin[name] for name, count in _COUNTS.items()}
        return {
            "mode": self._optimizations.compile_mode,
            "regions": sum(self._regions.values()),
            "regions_by_denoiser": self._regions,
            "compile_s": now - self._begin_s,
            "compile_in_windows_s": now - starts[min(warmup_calls, len(starts) - 1)],
            **counts,
            "graphs_of_others": dict(self._others),
            "fullgraph": self._arguments["fullgraph"],
            "dynamic": self._arguments["dynamic"],
            "inductor": {"mode": self._optimizations.inductor_mode, "options": self._arguments["options"]},
            "cache": self._cache.record(),
        }

    def _counted(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The same forward, with the graphs that are compiled while it runs counted as its own."""

        @functools.wraps(forward)
        def counting(*args: Any, **options: Any) -> Any:
            before = _graphs()
            try:
                return forward(*args, **options)
            finally:
                self._others[name] += _graphs() - before

        return counting


def regions_of(denoiser: Any, mode: CompileMode) -> list[Any]:
    """The modules that are compiled, each by itself."""
    return computing_blocks(denoiser) if mode == "regional" else [denoiser]


def compile_arguments(optimizations: Optimizations, *, is_denoiser: bool = True) -> dict[str, Any]:
    """Arguments of torch.compile. Torch takes a mode or options, so that a mode is written as its options."""
    mode = optimizations.inductor_mode
    if not is_denoiser:
        mode = CUDA_GRAPH_MODES.get(mode, mode)
    options = dict(torch._inductor.list_mode_options(mode))
    if optimizations.inductor_coordinate_descent:
        options["coordinate_descent_tuning"] = True
    if optimizations.inductor_conv_1x1_as_mm:
        options["conv_1x1_as_mm"] = True
    if not optimizations.inductor_epilogue_fusion:
        options["epilogue_fusion"] = False
    return {
        "fullgraph": optimizations.compile_fullgraph and is_denoiser,
        "dynamic": False if optimizations.compile_static_shapes else None,
        "options": options,
    }


def _with_own_outputs(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward whose outputs stay when it runs again: a replay writes to the recording's addresses."""

    @functools.wraps(forward)
    def owning(*args: Any, **options: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return _pytree.tree_map_only(torch.Tensor, torch.clone, forward(*args, **options))

    return owning


def _in_one_graph(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward whose graph break is an error of the user's choice of options."""

    @functools.wraps(forward)
    def whole(*args: Any, **options: Any) -> Any:
        try:
            return forward(*args, **options)
        except (exc.Unsupported, exc.FailOnRecompileLimitHit) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"--compile_fullgraph: the denoiser is not one graph ({reason}); leave it out"
            ) from error

    return whole


def _total_s() -> float:
    """Seconds that torch has spent on compiling in this process, tracing and code generation."""
    return float(calculate_time_spent()["total_wall_time"])


def _graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def _breaks() -> int:
    return sum(counters["graph_break"].values())


def _recompilations() -> int:
    """Compilations of code that had been compiled before, for other shapes or settings."""
    return sum(compiled - 1 for compiled in convert_frame.FRAME_COMPILE_COUNTER.values())


class _GivenUp(logging.Handler):
    """Counts the functions that torch compiles no more, and runs as they are, after too many recompilations.

    Torch only logs it (torch._dynamo.convert_frame); no counter of its own tells.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one message."""
        self.count += str(record.msg).startswith("torch._dynamo hit config.")


_GIVEN_UP = _GivenUp()
logging.getLogger(convert_frame.__name__).addHandler(_GIVEN_UP)
_COUNTS: dict[str, Callable[[], int]] = {
    "graphs": _graphs,
    "graph_breaks": _breaks,
    "recompilations": _recompilations,
    "given_up": lambda: _GIVEN_UP.count,
    "cuda_graph_skips": lambda: int(counters["inductor"]["cudagraph_skips"]),
}
