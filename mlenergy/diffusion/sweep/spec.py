"""Reader of a sweep file: the runs that it asks for, whether they can work or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlenergy.diffusion.config.option import text_fault
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.slurm import SlurmSettings
from mlenergy.diffusion.sweep.conditions import PROCESSES, REPEAT, Condition
from mlenergy.diffusion.sweep.options import full_name, value_in
from mlenergy.diffusion.sweep.yaml_file import read_yaml

ORDERS = ("written", "cheapest", "costliest")
_KEYS = ("folder", "common", "grid", "list", "filter", "repeats", "retries", "order", "slurm")
_SLURM_KEYS = ("processes_per_node", "gpus", "options", "setup", "container", "max_parallel")


@dataclass(frozen=True)
class Axis:
    """One dimension of a grid: options that change together, their values, and the condition to set them."""

    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    when: Condition | None = None


@dataclass(frozen=True)
class SweepSpec:
    """A whole sweep file."""

    name: str
    folder: Path
    common: Mapping[str, Any]
    grids: tuple[tuple[Axis, ...], ...]
    explicit: tuple[Mapping[str, Any], ...]
    filters: tuple[Condition, ...]
    repeats: int
    retries: int
    order: str
    slurm: SlurmSettings


def read_sweep(file: Path) -> SweepSpec:
    """Read a sweep file.

    Raises:
        UserError: it is missing or not valid YAML, or something in it is wrong; with the place.
    """
    return spec_of(_load(file), file.stem, str(file))


def spec_of(content: Mapping[str, Any], name: str, where: str) -> SweepSpec:
    """The sweep that a mapping describes, with the keys of a sweep file.

    Args:
        content: of a file, or made by a program.
        name: of the sweep; in the names of jobs.
        where: the content comes from, for messages.

    Raises:
        UserError: something in it is wrong; with the place.
    """
    _only(content, _KEYS, where)
    folder = _text(content, "folder", "a path") or str(Path("run") / "sweeps" / name)
    return SweepSpec(
        name=name,
        folder=Path(folder),
        common=_options(content.get("common"), "common"),
        grids=tuple(_grid(grid) for grid in _many(content.get("grid"), "grid")),
        explicit=tuple(_options(entry, "list") for entry in _many(content.get("list"), "list")),
        filters=tuple(Condition.parse(one) for one in _listed(content.get("filter"))),
        repeats=_count(content, "repeats", 1, 1),
        retries=_count(content, "retries", 1, 0),
        order=_order(content.get("order", ORDERS[0])),
        slurm=_slurm(content.get("slurm")),
    )


def _load(file: Path) -> dict[str, Any]:
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} must be a mapping with some of the keys {', '.join(_KEYS)}")
    if not any(content.get(key) for key in ("common", "grid", "list")):
        raise UserError(f"{file} names no run; give common, grid or list")
    return content


def _grid(grid: Mapping[str, Any]) -> tuple[Axis, ...]:
    axes = tuple(_axis(str(names), values) for names, values in grid.items())
    _check_distinct([name for axis in axes for name in axis.names], "grid")
    return axes


def _axis(written: str, values: Any) -> Axis:
    """`name: [1, 2]`, `name: {values: [1, 2], when: …}`, or `a, b: [[1, 2], [3, 4]]` for a pair."""
    where = f"grid {written}"
    names = tuple(full_name(name) for name in written.split(","))
    when = None
    if isinstance(values, Mapping):
        _only(values, ("values", "when"), where)
        when = _when(values["when"], where) if "when" in values else None
        values = values.get("values")
    rows = [[row] if len(names) == 1 else row for row in _listed(values)]
    if not rows:
        raise UserError(f"{where} has no values; write {written}: [1, 2]")
    if any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise UserError(f"{where} needs a list of {len(names)} values in each place; write [[1, 2], [3, 4]]")
    read = [tuple(value_in(where, name, one) for name, one in zip(names, row, strict=True)) for row in rows]
    return Axis(names, tuple(read), when)


def _when(written: Any, where: str) -> Condition:
    condition = Condition.parse(written)
    if later := condition.names & {PROCESSES, REPEAT}:
        raise UserError(f"{where}: when cannot ask for {min(later)}, which is known later; use filter")
    return condition


def _options(written: Any, where: str) -> dict[str, Any]:
    if not isinstance(written, Mapping | None):
        raise UserError(f"{where} must map options to values, not {written!r}; write option: value")
    named = [(full_name(name), value) for name, value in (written or {}).items()]
    _check_distinct([name for name, _ in named], where)
    return {name: value_in(where, name, value) for name, value in named}


def _check_distinct(names: Sequence[str], where: str) -> None:
    """Refuse an option that is given twice, in two spellings or on two axes."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{where} gives {twice} twice; keep one")


def _slurm(written: Any) -> SlurmSettings:
    if not isinstance(written, Mapping | None):
        raise UserError(f"slurm must be a mapping with some of the keys {', '.join(_SLURM_KEYS)}")
    given = dict(written or {})
    _only(given, _SLURM_KEYS, "slurm")
    setup, gpus, options = given.get("setup") or [], given.get("gpus", True), given.get("options") or {}
    setup = setup.splitlines() if isinstance(setup, str) else setup
    if not isinstance(setup, list) or not all(isinstance(line, str) for line in setup):
        raise UserError(f"slurm: setup takes lines of shell, not {setup!r}; write setup: |")
    if not isinstance(gpus, bool):
        raise UserError(f"slurm: gpus takes true or false, not {gpus!r}")
    if not isinstance(options, Mapping) or any(isinstance(v, (list, dict)) for v in options.values()):
        raise UserError(
            f"slurm: options maps sbatch's options to values, not {options!r}; write option: value"
        )
    maximum = _count(given, "max_parallel", 0, 1) if "max_parallel" in given else None
    return SlurmSettings(
        processes_per_node=_count(given, "processes_per_node", 8, 1),
        gpus=gpus,
        options={str(k).lstrip("-").replace("_", "-"): v for k, v in options.items()},
        setup=tuple(setup),
        container=_text(given, "container", "a command") or "",
        max_parallel=maximum,
    )


def _text(content: Mapping[str, Any], key: str, what: str) -> str | None:
    value = content.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip() or text_fault(value)):
        raise UserError(f"{key} takes {what} as a text, not {value!r}")
    return value


def _order(written: Any) -> str:
    if written not in ORDERS:
        raise UserError(f"order {written!r} is not known; use one of {', '.join(ORDERS)}")
    return str(written)


def _count(content: Mapping[str, Any], key: str, default: int, least: int) -> int:
    value = content.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{key} {value!r} must be a whole number of {least} or more")
    return value


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _many(value: Any, where: str) -> list[Mapping[str, Any]]:
    """One mapping or a list of them."""
    entries = _listed(value)
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise UserError(f"{where} must hold mappings of options to values; write option: value")
    return entries


def _only(content: Iterable[str], known: tuple[str, ...], where: str) -> None:
    unknown = [str(key) for key in content if key not in known]
    if unknown:
        raise UserError(f"{where} has no key {unknown[0]!r}; use some of {', '.join(known)}")
