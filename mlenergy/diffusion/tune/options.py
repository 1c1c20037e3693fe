"""The command line of `mlenergy tune`: what is searched, what stays as it is given, and for how long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.tune.parser import PROG, tune_parser

FIRST_ITERS = 3

# What a run's option fixes -> the axis that would search it.
FIXED_BY = {
    "workload.batch_size": "batch_sizes",
    "attention_backend": "attention_backends",
    "use_torch_compile": "compile",
    "compile_mode": "compile",
    "power_limit_w": "power_limits_w",
    "ulysses_degree": "degrees",
    "ring_degree": "degrees",
    "use_cfg_parallel": "degrees",
    "data_parallel_degree": "degrees",
    "pipefusion_parallel_degree": "degrees",
    "tensor_parallel_degree": "degrees",
}
_NOT_HERE = {
    "target_ci": "tune decides how long it measures; use --tolerance",
    "max_iters": "tune decides how long it measures; use --rounds",
    "overwrite_results": "tune keeps what it has measured; use another --folder to measure anew",
}


@dataclass(frozen=True)
class Asked:
    """What the command line asks for; None leaves an axis to `axes.axes_of`."""

    words: tuple[str, ...]  # the run's own options and its workload
    given: frozenset[str]  # full names of the run's options that are written out
    processes: int | None
    budget_s: float
    rounds: int
    tolerance: float
    degrees: tuple[dict[str, int], ...] | None
    batch_sizes: tuple[int, ...] | None
    attention_backends: tuple[str, ...] | None
    compile: tuple[str, ...] | None
    power_limits_w: tuple[float | None, ...] | None
    approximate: bool
    gpu_memory_gib: float | None
    folder: Path | None
    retry_failed: bool
    dry_run: bool
    json: bool


def read_command(argv: Sequence[str]) -> Asked:
    """Part tune's own options from the run's.

    Raises:
        UserError: an option is not understood, not tune's to take, or fixed and searched at once.
        SystemExit: after --help.
    """
    parser = tune_parser()
    argv = [_underscored(word) for word in argv]
    # What follows an axis' values may be the workload's name, which is none of them.
    at = next((i for i, word in enumerate(argv) if word.startswith("workload:")), len(argv))
    mine, before = parser.parse_known_args(list(argv[:at]))
    mine, after = parser.parse_known_args(list(argv[at + 1 :]), mine)
    words = (*before, *argv[at : at + 1], *after)
    asked = Asked(
        words=words,
        given=frozenset(_names(words)),
        **{name: _plain(name, value) for name, value in vars(mine).items()},
    )
    _check(asked)
    return asked


def _underscored(word: str) -> str:
    """Hyphens and underscores are the same in an option's name, as in a run's."""
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def _names(words: Iterable[str]) -> Iterable[str]:
    """Full names of the options among the words: `--workload.no-save-x=…` is workload.save_x."""
    for word in words:
        if word.startswith("--"):
            group, dot, own = word[2:].partition("=")[0].replace("-", "_").rpartition(".")
            yield f"{group}{dot}{own.removeprefix('no_')}"


def _plain(name: str, value: Any) -> Any:
    """Lists as tuples; `none` as None; degrees that are `auto` leave the axis open."""
    if not isinstance(value, list):
        return value
    if name == "degrees" and "auto" in value:
        if len(value) > 1:
            raise UserError("--degrees takes auto or a list of degrees, not both")
        return None
    return tuple(None if one == "none" else one for one in value)


def _check(asked: Asked) -> None:
    for name, instead in _NOT_HERE.items():
        if name in asked.given:
            raise UserError(f"--{name} has no place in {PROG}: {instead}")
    for name, axis in FIXED_BY.items():
        if name in asked.given and getattr(asked, axis) is not None:
            raise UserError(f"--{name} fixes what --{axis} searches; leave one of them out")
