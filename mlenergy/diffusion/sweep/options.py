"""Options as a sweep file writes them: names and values, checked against the benchmark's own."""

from __future__ import annotations

import functools
from typing import Any

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.argv import WORKLOAD
from mlenergy.diffusion.config.command_line import CommandLine
from mlenergy.diffusion.config.option import Option, nearest, shown
from mlenergy.diffusion.errors import UserError

BASE_DIR = "workload.base_dir"
MODEL = "workload.model_id"

# Options that a sweep sets itself.
_NOT_IN_A_SWEEP = {
    "dry_run": "use mlenergy sweep --print",
    "overwrite_results": "use mlenergy sweep --no_resume",
}

# Types as YAML has them, in words. A truth value is a whole number to Python, so it comes first.
_KINDS: tuple[tuple[type[Any] | tuple[type[Any], ...], str], ...] = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number"),
    (str, "a text"),
    ((list, tuple), "a list"),
    (dict, "a mapping"),
)


@functools.cache
def known_options() -> frozenset[str]:
    """Full names of all options: `ulysses_degree`, `workload.batch_size`, and `workload` itself."""
    return frozenset({*CommandLine.of(BenchmarkArgs).options, WORKLOAD})


def full_name(name: str) -> str:
    """An option's full name: hyphens become underscores, and `workload.` may be left out.

    Raises:
        UserError: the option does not exist, or a sweep cannot set it.
    """
    plain = str(name).strip().lstrip("-").replace("-", "_")
    for candidate in (plain, f"{WORKLOAD}.{plain}"):
        if candidate in _NOT_IN_A_SWEEP:
            raise UserError(f"a sweep cannot set {candidate}; {_NOT_IN_A_SWEEP[candidate]}")
        if candidate in known_options():
            return candidate
    meant = nearest(plain, [*known_options(), *(known.partition(".")[2] for known in known_options())])
    raise UserError(
        f"there is no option {name!r}; " + (f"did you mean {meant}?" if meant else "see mlenergy run --help")
    )


def value_in(where: str, name: str, value: Any) -> Any:
    """The value of an option as a run takes it; None stands for the option's default.

    Args:
        where: the part of the file, for messages.
        name: the option's full name.
        value: as YAML has read it.

    Raises:
        UserError: it is of another type than the option takes, or out of the option's range.
    """
    if value is None:
        return None
    if name == WORKLOAD:
        workloads = [known.partition(":")[2] for known in CommandLine.of(BenchmarkArgs).workloads]
        if value not in workloads:
            raise UserError(f"{where}: workload takes one of {', '.join(workloads)}, not {shown(str(value))}")
        return value
    option = CommandLine.of(BenchmarkArgs).options[name]
    try:
        if option.takes == "values":
            # A lone value stands for a list of one, and GPUs by their index are texts, too.
            many = value if isinstance(value, (list, tuple)) else [value]
            return [_one_value(option, str(one) if type(one) is int else one) for one in many]
        return _one_value(option, value)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix('--')}") from None


def _one_value(option: Option, value: Any) -> Any:
    if option.takes == "no value":
        if isinstance(value, bool):
            return value
        raise UserError(f"{option.name} takes true or false, not {_described(value)}")
    # YAML takes 1e-3 for a text, so that texts are read as numbers, where an option takes one.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, str) or (is_number and option.value_type in (int, float)):
        read = option.value_of(value if isinstance(value, str) else repr(value))
        return read if isinstance(value, str) else value
    expected = {int: "a whole number", float: "a number"}.get(option.value_type, "a text")
    in_quotes = "; put it in quotes" if expected == "a text" and not isinstance(value, (list, dict)) else ""
    raise UserError(f"{option.name} takes {expected}, not {_described(value)}{in_quotes}")


def _described(value: Any) -> str:
    """A value with its kind, for a message."""
    kind = next((words for kinds, words in _KINDS if isinstance(value, kinds)), "a date")
    return f"{shown(str(value), quoted=isinstance(value, str))} ({kind})"
