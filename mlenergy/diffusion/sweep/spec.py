"""Reader of a sweep file: the runs that it asks for, whether they can work or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.slurm import SlurmSettings
from mlenergy.diffusion.sweep.conditions import Condition
from mlenergy.diffusion.sweep.options import full_name

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
    content = _load(file)
    _only(content, _KEYS, str(file))
    return SweepSpec(
        name=file.stem,
        folder=Path(content.get("folder", Path("run") / "sweeps" / file.stem)),
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
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; name a sweep file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())}; fix it") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} must be a mapping with some of the keys {', '.join(_KEYS)}")
    if not any(content.get(key) for key in ("common", "grid", "list")):
        raise UserError(f"{file} names no run; give common, grid or list")
    return content


def _grid(written: Mapping[str, Any]) -> tuple[Axis, ...]:
    return tuple(_axis(str(names), values) for names, values in written.items())


def _axis(written: str, values: Any) -> Axis:
    """`name: [1, 2]`, `name: {values: [1, 2], when: …}`, or `a, b: [[1, 2], [3, 4]]` for a pair."""
    names = tuple(full_name(name) for name in written.split(","))
    when = None
    if isinstance(values, Mapping):
        _only(values, ("values", "when"), f"grid {written}")
        when = Condition.parse(values["when"]) if "when" in values else None
        values = values.get("values")
    rows = [[row] if len(names) == 1 else row for row in _listed(values)]
    if not rows:
        raise UserError(f"grid {written} has no values; write {written}: [1, 2]")
    if any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise UserError(
            f"grid {written} needs a list of {len(names)} values in each place; write [[1, 2], [3, 4]]"
        )
    return Axis(names, tuple(tuple(row) for row in rows), when)


def _options(written: Any, where: str) -> dict[str, Any]:
    if not isinstance(written, Mapping | None):
        raise UserError(f"{where} must map options to values, not {written!r}; write option: value")
    return {full_name(name): value for name, value in (written or {}).items()}


def _slurm(written: Any) -> SlurmSettings:
    if not isinstance(written, Mapping | None):
        raise UserError(f"slurm must be a mapping with some of the keys {', '.join(_SLURM_KEYS)}")
    given = dict(written or {})
    _only(given, _SLURM_KEYS, "slurm")
    setup = given.get("setup") or ""
    maximum = _count(given, "max_parallel", 0, 1) if "max_parallel" in given else None
    return SlurmSettings(
        processes_per_node=_count(given, "processes_per_node", 8, 1),
        gpus=bool(given.get("gpus", True)),
        options={str(k).lstrip("-").replace("_", "-"): v for k, v in (given.get("options") or {}).items()},
        setup=tuple(setup.splitlines() if isinstance(setup, str) else setup),
        container=str(given.get("container") or ""),
        max_parallel=maximum,
    )


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
