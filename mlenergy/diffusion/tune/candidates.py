"""Every combination of the axes that can work, in the order in which they are tried."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.names import identity_digest
from mlenergy.diffusion.tune.axes import Axes, with_degrees
from mlenergy.diffusion.tune.pruning import Planner, Pruned
from mlenergy.diffusion.tune.settings import label_of, way_of

if TYPE_CHECKING:
    from mlenergy.diffusion.config.args import BenchmarkArgs
    from mlenergy.diffusion.config.plan import Plan


@dataclass(frozen=True)
class Candidate:
    """Settings that can work."""

    number: int  # from 1, in the order of trying
    args: BenchmarkArgs
    plan: Plan
    guess: float | None  # the plan's, per image; None where it has none

    @property
    def label(self) -> str:
        """Its settings in a few words."""
        return label_of(self.plan)


@dataclass(frozen=True)
class Choice:
    """All candidates, and what was left out."""

    candidates: tuple[Candidate, ...]
    pruned: tuple[Pruned, ...]
    guess_reason: str | None  # why the plan has no guess


@dataclass(frozen=True)
class _Placed:
    """A combination and the sum of its places on the axes."""

    args: BenchmarkArgs
    plan: Plan
    guess: float | None
    places: int


def choose(args: BenchmarkArgs, axes: Axes, planner: Planner) -> Choice:
    """Plan every combination of the axes.

    Order: by the sum of a combination's places on its axes, degrees standing in the order of the
    plan's guess, approximate ones last. The best guess comes first, then what differs from it by one
    step on one axis. So a budget that ends early has seen something of every axis.

    Args:
        args: the run's own options.
        axes: what is searched.
        planner: says what can work.

    Raises:
        UserError: nothing can.
    """
    found = [one for way in _ways(args, axes, planner) for one in _with_optimizations(way, axes, planner)]
    if not found:
        raise UserError(f"nothing can be measured: {planner.pruned[0].reason}")
    found.sort(key=lambda one: (one.places, one.guess or 0.0))
    different = {identity_digest(one.plan): one for one in reversed(found)}
    kept = [one for one in found if different[identity_digest(one.plan)] is one]
    candidates = [Candidate(n, one.args, one.plan, one.guess) for n, one in enumerate(kept, 1)]
    return Choice(tuple(candidates), tuple(planner.pruned), planner.guess_reason)


def _ways(args: BenchmarkArgs, axes: Axes, planner: Planner) -> Iterator[_Placed]:
    """Degrees and batch sizes, with the attention and compilation that `args` has."""
    counts = sorted({math.prod(degrees.values()) for degrees in axes.degrees}, reverse=True)
    for at_batch, batch in enumerate(axes.batch_sizes):
        sized = replace(args, workload=replace(args.workload, batch_size=batch))
        for at_count, count in enumerate(counts):
            ways = []
            for degrees in axes.degrees:
                if math.prod(degrees.values()) == count:
                    shared = with_degrees(sized, degrees)
                    planned = planner.way(shared, degrees)
                    ways += [] if planned is None else [_Placed(shared, *planned, 0)]
            ways.sort(key=lambda way: (way.plan.approximation is not None, way.guess or 0.0))
            for at_degrees, way in enumerate(ways):
                yield replace(way, places=at_batch + at_count + at_degrees)


def _with_optimizations(way: _Placed, axes: Axes, planner: Planner) -> list[_Placed]:
    """A way with every attention backend, compilation and power limit that can work."""
    found = [
        one
        for place, name in enumerate(axes.attention)
        for one in _with_attention(way, place, name, axes, planner)
    ]
    if not found and axes.attention_else is not None:
        return list(_with_attention(way, 0, axes.attention_else, axes, planner))
    return found


def _with_attention(
    way: _Placed, place: int, attention: str, axes: Axes, planner: Planner
) -> Iterator[_Placed]:
    for at_compile, compiling in enumerate(axes.compile):
        for at_watts, watts in enumerate(axes.power_limits_w):
            changes: dict[str, Any] = {**compiling, "attention_backend": attention, "power_limit_w": watts}
            args = replace(way.args, **changes)
            compiled = ", compiled" if compiling["use_torch_compile"] else ""
            plan = planner.plan(args, f"{way_of(way.plan)}, {attention} attention{compiled}")
            if plan is not None:
                yield _Placed(args, plan, way.guess, way.places + place + at_compile + at_watts)
