"""The search space: every combination of the axes that can work, in the order in which they are tried."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlenergy.diffusion.config.args import BenchmarkArgs, changed
from mlenergy.diffusion.config.attention import ATTENTION
from mlenergy.diffusion.config.optimizations import OPTIMIZATIONS
from mlenergy.diffusion.config.parallelism import AXES, MODES
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.size import FLOPS_PER_BYTE, factorings, size_plan
from mlenergy.diffusion.environment.gpus import GIB
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.spec import ModelSpec
from mlenergy.diffusion.results.names import identity_digest
from mlenergy.diffusion.tune.forecasts import Expected, expected_of, places_of
from mlenergy.diffusion.tune.machine import Machine
from mlenergy.diffusion.tune.options import TuneArgs
from mlenergy.diffusion.tune.settings import label_of, layout_of

# Images an iteration, where none are named: as a GPU fills up, more of them gain little.
_BATCH_SIZES = (1, 2, 4, 8)
_EXACT = tuple(record.option for record in OPTIMIZATIONS.values() if record.is_searched)
_ATTENTION = tuple(name for name, kernel in ATTENTION.items() if kernel.is_searched)

_OPTION_OF: dict[str, str] = {mode: MODES[mode].option for mode in MODES if mode in AXES}


@dataclass(frozen=True)
class Axes:
    """Values of every axis, the likeliest first; an axis that is not searched has the given value only."""

    degrees: tuple[Mapping[str, int], ...]  # most processes first
    batch_sizes: tuple[int, ...]
    attention: tuple[str, ...]
    attention_fallback: str | None  # where none of `attention` can work: the engine's own choice
    compile: tuple[Mapping[str, Any], ...]  # options of the run
    exact_options: tuple[str, ...]  # off, on
    power_limits_w: tuple[float | None, ...]


@dataclass(frozen=True)
class Candidate:
    """Settings that can work."""

    number: int  # from 1, in the order of trying
    args: BenchmarkArgs
    plan: Plan
    guess: float | None  # the plan's cost per image, in no unit; None where it has none
    expected: Expected | str  # the forecast, or the reason why there is none

    @property
    def label(self) -> str:
        """Its settings in a few words."""
        return label_of(self.plan)


@dataclass(frozen=True)
class Pruned:
    """Settings that cannot work, and the reason."""

    label: str
    reason: str


@dataclass(frozen=True)
class SearchSpace:
    """All candidates, and the combinations that cannot work."""

    candidates: tuple[Candidate, ...]
    pruned: tuple[Pruned, ...]
    guess_reason: str | None  # the reason why the plans have no guess

    @property
    def forecast_reason(self) -> str | None:
        """The reason why no candidate has a forecast, so that guesses order them; None where one has."""
        reasons = [one.expected for one in self.candidates if isinstance(one.expected, str)]
        return reasons[0] if len(reasons) == len(self.candidates) else None


@dataclass(frozen=True)
class _Combination:
    args: BenchmarkArgs
    plan: Plan
    guess: float | None
    places: int  # sum of its places on the axes
    expected_s: float = 0.0  # forecast seconds of an image; infinite without a forecast, 0 where none has one


def axes_of(asked: TuneArgs, args: BenchmarkArgs, processes: int) -> Axes:
    """The axes of a search.

    Args:
        asked: tune's own options.
        args: the run's options; what they fix is the axis' only value.
        processes: devices to use at most.

    Raises:
        UserError: no degrees are left to search.
    """
    given, attention = asked.given, asked.attention_backends
    is_open = attention is None and "attention_backend" not in given
    compiling: tuple[Mapping[str, Any], ...]
    if given.intersection(("use_torch_compile", "compile_mode")):
        compiling = ({"use_torch_compile": args.use_torch_compile, "compile_mode": args.compile_mode},)
    else:
        compiling = tuple(
            {
                "use_torch_compile": mode != "off",
                "compile_mode": mode if mode in ("regional", "whole") else None,
            }
            for mode in asked.compile or ("off", "on")
        )
    return Axes(
        degrees=_degrees(asked, args, processes),
        batch_sizes=asked.batch_sizes
        or ((args.workload.batch_size,) if "workload.batch_size" in given else _BATCH_SIZES),
        attention=_ATTENTION if is_open else attention or (args.attention_backend,),
        attention_fallback="auto" if is_open else None,
        compile=compiling,
        exact_options=asked.exact_options or ("off",),
        power_limits_w=asked.power_limits_w or (args.power_limit_w,),
    )


def search_space(args: BenchmarkArgs, axes: Axes, planner: Planner) -> SearchSpace:
    """Plan every combination of the axes.

    Order: by the sum of a combination's places on its axes. Degrees and batch sizes have one place together,
    by their forecasts (`forecasts.places_of`); where no forecast can be made, degrees stand in the order of
    the plan's guess, approximate ones last. The best comes first, then what differs from it by one step on
    one axis. So a budget that ends early has seen something of every axis.

    Args:
        args: the run's own options.
        axes: what is searched.
        planner: tells what can work.

    Raises:
        UserError: nothing can.
    """
    found = [
        one
        for layout in _by_forecast(list(_layouts(args, axes, planner)))
        for one in _with_optimizations(layout, axes, planner)
    ]
    if not found:
        raise UserError(f"nothing can be measured: {planner.pruned[0].reason}")
    found.sort(key=lambda one: (one.places, one.expected_s, one.guess or 0.0))
    # Of combinations that come to the same run, the first.
    distinct = {identity_digest(one.plan): one for one in reversed(found)}
    kept = [one for one in found if distinct[identity_digest(one.plan)] is one]
    candidates = [
        Candidate(n, one.args, one.plan, one.guess, expected_of(one.plan)) for n, one in enumerate(kept, 1)
    ]
    return SearchSpace(tuple(candidates), tuple(planner.pruned), planner.guess_reason)


class Planner:
    """Plans combinations exactly as the run will, sizes them, and keeps the reasons of what cannot work.

    Args:
        model: the model.
        machine: where it would run.
        approximate: keep degrees whose images are not exactly those of one process.
    """

    def __init__(self, model: ModelSpec, machine: Machine, approximate: bool) -> None:
        self._model = model
        self._machine = machine
        self._approximate = approximate
        self.pruned: list[Pruned] = []
        self.guess_reason: str | None = None  # the reason why there are no guesses

    def plan(self, args: BenchmarkArgs, label: str) -> Plan | None:
        """The plan, or None where it is refused."""
        try:
            return make_plan(args, self._model, None, self._machine.device, self._machine.device_name)
        except UserError as error:
            self.pruned.append(Pruned(label, str(error)))
            return None

    def exact_options(self, args: BenchmarkArgs) -> dict[str, Any]:
        """The exact options that a run takes, each by itself."""
        taken: dict[str, Any] = {}
        for option in _EXACT:
            change: dict[str, Any] = {option: True}
            asked = changed(args, **change)
            try:
                make_plan(asked, self._model, None, self._machine.device, self._machine.device_name)
            except UserError:
                continue
            taken |= change
        return taken

    def layout(self, args: BenchmarkArgs, degrees: Mapping[str, int]) -> tuple[Plan, float | None] | None:
        """The plan of degrees and a batch size that work, fit, and are exact; with its guess, in no unit."""
        named = [f"{name} {degree}" for name, degree in degrees.items() if degree > 1]
        label = f"{', '.join(named) or '1 process'}, batch {args.workload.batch_size}"
        count, available = math.prod(degrees.values()), self._machine.processes
        if count > available:
            reason = f"it takes {count} processes, and there are {available}; see --processes"
            self.pruned.append(Pruned(label, reason))
            return None
        plan = self.plan(args, label)
        if plan is None:
            return None
        too_large, guess = self._size(plan)
        inexact = None if self._approximate else plan.approximation
        if too_large is not None or inexact is not None:
            reason = too_large or f"{inexact}; --approximate searches it too"
            self.pruned.append(Pruned(label, reason))
            return None
        return plan, guess

    def _size(self, plan: Plan) -> tuple[str | None, float | None]:
        """The reason why it does not fit into memory, and the guess per image: arithmetic and bytes sent."""
        # The estimate is of a run without options that make weights or activations smaller.
        gib = None if plan.optimizations.memory_options else self._machine.gpu_memory_gib
        try:
            sized = size_plan(plan, processes=1, gpu_memory_gib=gib).own
        except UserError as error:
            self.guess_reason = str(error)
            return None, None
        sent = sized.communication.total_bytes * plan.steps * FLOPS_PER_BYTE / 1e12
        guess = (sized.tflops_per_rank + sent) / plan.batch_size
        if sized.memory.fits is False:
            needs = (sized.memory.peak_bytes + sized.memory.context_bytes) / GIB
            return f"it needs about {needs:.3g} GiB of each GPU's memory, and there are {gib:.3g}", guess
        return None, guess


def _degrees(asked: TuneArgs, args: BenchmarkArgs, processes: int) -> tuple[Mapping[str, int], ...]:
    if asked.degrees is not None:
        return asked.degrees
    fixed = {name: option for name, option in _OPTION_OF.items() if option in asked.given}
    wanted = {}
    for name, option in fixed.items():
        value = getattr(args, option)
        wanted[name] = (2 if value else 1) if isinstance(value, bool) else int(value)
    found = tuple(
        degrees
        for count in range(processes, 0, -1)
        if processes % count == 0
        for degrees in _products(count)
        if all(degrees[name] == degree for name, degree in wanted.items())
    )
    if not found:
        options = ", ".join(f"--{option}" for option in fixed.values())
        raise UserError(
            f"no degrees with the given {options} make {processes} processes or a part of them; "
            "change --processes or the degrees"
        )
    return found


def _products(count: int) -> Iterator[Mapping[str, int]]:
    """Every product of degrees that makes a number of processes; the guidance has two halves at most."""
    for factors in factorings(count, parts=len(AXES)):
        degrees = dict(zip(AXES, factors, strict=True))
        if degrees["cfg"] <= 2:
            yield degrees


def _layouts(args: BenchmarkArgs, axes: Axes, planner: Planner) -> Iterator[_Combination]:
    """Degrees and batch sizes, with the attention and compilation that `args` has."""
    counts = sorted({math.prod(degrees.values()) for degrees in axes.degrees}, reverse=True)
    for at_batch, batch in enumerate(axes.batch_sizes):
        for at_count, count in enumerate(counts):
            layouts = []
            for degrees in axes.degrees:
                if math.prod(degrees.values()) != count:
                    continue
                options: dict[str, Any] = {_OPTION_OF[name]: degree for name, degree in degrees.items()}
                options["use_cfg_parallel"] = degrees["cfg"] == 2
                asked = changed(args, **options, workload=replace(args.workload, batch_size=batch))
                planned = planner.layout(asked, degrees)
                layouts += [] if planned is None else [_Combination(asked, *planned, 0)]
            layouts.sort(key=lambda one: (one.plan.approximation is not None, one.guess or 0.0))
            for at_degrees, layout in enumerate(layouts):
                yield replace(layout, places=at_batch + at_count + at_degrees)


def _by_forecast(layouts: list[_Combination]) -> list[_Combination]:
    """Layouts with their places by forecast; unchanged where none has one."""
    layouts.sort(key=lambda one: (one.places, one.guess or 0.0))
    found = [one if isinstance(one := expected_of(layout.plan), Expected) else None for layout in layouts]
    if not any(found):
        return layouts
    return [
        replace(layout, places=place, expected_s=math.inf if one is None else one.seconds.value)
        for layout, one, place in zip(layouts, found, places_of(found), strict=True)
    ]


def _with_optimizations(layout: _Combination, axes: Axes, planner: Planner) -> list[_Combination]:
    """A layout with every attention backend, compilation and power limit that can work."""
    found = [
        one
        for place, name in enumerate(axes.attention)
        for one in _with_attention(layout, place, name, axes, planner)
    ]
    if not found and axes.attention_fallback is not None:
        return list(_with_attention(layout, 0, axes.attention_fallback, axes, planner))
    return found


def _with_attention(
    layout: _Combination, place: int, attention: str, axes: Axes, planner: Planner
) -> Iterator[_Combination]:
    exacts, limits = enumerate(axes.exact_options), enumerate(axes.power_limits_w)
    beside = list(itertools.product(exacts, limits))
    for at_compile, compiling in enumerate(axes.compile):
        for (at_exact, exact), (at_watts, watts) in beside:
            changes: dict[str, Any] = {**compiling, "attention_backend": attention, "power_limit_w": watts}
            args = changed(layout.args, **changes)
            if exact == "on":
                args = changed(args, **planner.exact_options(args))
            compiled = ", compiled" if compiling["use_torch_compile"] else ""
            plan = planner.plan(args, f"{layout_of(layout.plan)}, {attention} attention{compiled}")
            if plan is not None:
                places = layout.places + place + at_compile + at_exact + at_watts
                yield _Combination(args, plan, layout.guess, places, layout.expected_s)
