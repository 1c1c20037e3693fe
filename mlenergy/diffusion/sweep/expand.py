"""The runs of a sweep file, in the order written: grids first, then the explicit list."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlenergy.diffusion.config.argv import to_argv
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.job import key_of
from mlenergy.diffusion.sweep.conditions import PROCESSES, REPEAT
from mlenergy.diffusion.sweep.options import BASE_DIR, MODEL
from mlenergy.diffusion.sweep.spec import Axis, SweepSpec


@dataclass(frozen=True)
class Run:
    """One run of a sweep: options by full name, and its number among the repeats."""

    number: int  # from 1, in the order written
    options: Mapping[str, Any]
    repeat: int  # from 1
    label: str  # the options in which the sweep's runs differ

    @functools.cached_property
    def argv(self) -> tuple[str, ...]:
        """The benchmark's command line."""
        return to_argv(self.options)

    @functools.cached_property
    def key(self) -> str:
        """Its name in the ledger, whatever its place in the sweep file."""
        return key_of(self.argv)


def expand(spec: SweepSpec) -> list[Run]:
    """All distinct runs that the filters leave. Filters by processes are applied later, to the planned runs.

    Raises:
        UserError: a run has no model.
    """
    distinct: dict[tuple[str, ...], dict[str, Any]] = {}
    for own in _own_options(spec):
        options = {**spec.common, **own}
        if options.get(MODEL) is None:
            raise UserError("no model is named; put model_id under common, or into the grid or list")
        distinct.setdefault(to_argv(options), options)
    repeats = range(1, spec.repeats + 1)
    wanted = [
        (options, repeat)
        for options in distinct.values()
        for repeat in repeats
        if all(f.holds({**options, REPEAT: repeat}) for f in spec.filters if PROCESSES not in f.names)
    ]
    varied = _varied([options for options, _ in wanted])
    runs = []
    for number, (options, repeat) in enumerate(wanted, 1):
        label = _label(options, varied, repeat, spec.repeats)
        runs.append(Run(number, _with_base_dir(spec, options, repeat), repeat, label))
    return runs


def _own_options(spec: SweepSpec) -> Iterator[dict[str, Any]]:
    for grid in spec.grids:
        yield from _combinations(grid, spec.common)
    yield from (dict(entry) for entry in spec.explicit)
    if not spec.grids and not spec.explicit:
        yield {}


def _combinations(grid: tuple[Axis, ...], common: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination; an axis whose condition does not hold leaves its options out."""
    for row in itertools.product(*(axis.values for axis in grid)):
        options: dict[str, Any] = {}
        plain = [(axis, values) for axis, values in zip(grid, row, strict=True) if axis.when is None]
        conditional = [
            (axis, values) for axis, values in zip(grid, row, strict=True) if axis.when is not None
        ]
        # Plain axes first, so that a condition may name one that is written below it.
        for axis, values in (*plain, *conditional):
            if axis.when is None or axis.when.holds({**common, **options}):
                options.update(zip(axis.names, values, strict=True))
        yield options


def _with_base_dir(spec: SweepSpec, options: Mapping[str, Any], repeat: int) -> dict[str, Any]:
    """Options with a base folder; repeats are the same set-up, so each needs a folder of its own."""
    base = str(options.get(BASE_DIR) or spec.folder / "results")
    return {**options, BASE_DIR: f"{base}/repeat-{repeat}" if spec.repeats > 1 else base}


def _varied(runs: list[Mapping[str, Any]]) -> list[str]:
    """Options that are not the same in all runs."""
    names = dict.fromkeys(name for options in runs for name in options)
    return [name for name in names if len({repr(options.get(name)) for options in runs}) > 1]


def _label(options: Mapping[str, Any], varied: list[str], repeat: int, repeats: int) -> str:
    parts = [f"{name.rpartition('.')[2]}={options[name]}" for name in varied if options.get(name) is not None]
    parts += [f"repeat={repeat}"] if repeats > 1 else []
    return " ".join(parts) or str(options[MODEL])
