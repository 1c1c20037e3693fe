"""Option names as a sweep writes them, checked against the benchmark's own, and back to a command line."""

from __future__ import annotations

import difflib
import functools
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.errors import UserError

WORKLOAD = "workload"
DEFAULT_WORKLOAD = "text-to-image"
BASE_DIR = "workload.base_dir"
MODEL = "workload.model_id"

# These decide about a run from outside; a sweep decides them itself.
_NOT_IN_A_SWEEP = {
    "dry_run": "use mlenergy sweep --print",
    "overwrite_results": "use mlenergy sweep --no-resume",
}


@functools.cache
def known_options() -> frozenset[str]:
    """Full names of all options: `ulysses_degree`, `workload.batch_size`, and `workload` itself."""
    hints = typing.get_type_hints(BenchmarkArgs)
    workloads = [kind for kind in (hints[WORKLOAD], *typing.get_args(hints[WORKLOAD])) if is_dataclass(kind)]
    of_workload = {f"{WORKLOAD}.{field.name}" for kind in workloads for field in fields(kind)}
    return frozenset({field.name for field in fields(BenchmarkArgs)} | of_workload)


def full_name(name: str) -> str:
    """An option's full name: hyphens become underscores, and `workload.` may be left out.

    Raises:
        UserError: there is no such option, or a sweep cannot set it.
    """
    plain = str(name).strip().lstrip("-").replace("-", "_")
    for candidate in (plain, f"{WORKLOAD}.{plain}"):
        if candidate in _NOT_IN_A_SWEEP:
            raise UserError(f"a sweep cannot set {candidate}; {_NOT_IN_A_SWEEP[candidate]}")
        if candidate in known_options():
            return candidate
    near = difflib.get_close_matches(
        plain, [*known_options(), *(o.partition(".")[2] for o in known_options())], 1
    )
    raise UserError(
        f"there is no option {name!r}; " + (f"did you mean {near[0]}?" if near else "see mlenergy run --help")
    )


def to_argv(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The benchmark's command line; None leaves an option at its default."""
    workload = options.get(WORKLOAD) or DEFAULT_WORKLOAD
    given = {name: value for name, value in options.items() if name != WORKLOAD and value is not None}
    of_run = [word for name in given if not _of_workload(name) for word in _words(name, given[name])]
    of_workload = [word for name in given if _of_workload(name) for word in _words(name, given[name])]
    return (*of_run, f"{WORKLOAD}:{workload}", *of_workload)


def _of_workload(name: str) -> bool:
    return name.startswith(f"{WORKLOAD}.")


def _words(name: str, value: Any) -> list[str]:
    if value is True:
        return [f"--{name}"]
    if value is False:
        group, dot, own = name.rpartition(".")
        return [f"--{group}{dot}no-{own}"]
    if isinstance(value, (list, tuple)):
        return [f"--{name}", *(str(item) for item in value)]
    # A text that begins with a hyphen would be taken for the next option.
    return [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]
