"""The command line of `mlenergy tune`: what is searched, what stays as it is given, and for how long."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mlenergy.diffusion.knobs import AttentionName
from mlenergy.errors import UserError

PROG = "mlenergy tune"
DEGREES = ("data", "cfg", "pipefusion", "ring", "ulysses", "tensor")
COMPILE = ("off", "on", "regional", "whole")
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
    parser = _parser()
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


class _Parser(argparse.ArgumentParser):
    """Complains as every other verb does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {PROG} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROG,
        allow_abbrev=False,
        usage=f"{PROG} [TUNE OPTIONS] [RUN OPTIONS] workload:text-to-image --workload.model_id MODEL …",
        description="Find the settings that cost least seconds and joules per image. It takes the options of "
        "mlenergy run too: what they fix stays fixed, the rest is searched. Started again, it goes on. "
        "docs/tune.md describes it.",
    )

    def add(name: str, **settings: Any) -> None:
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        parser.add_argument(*spellings, dest=name, **settings)

    attention = list(typing.get_args(AttentionName))
    add("processes", type=_whole, help="use at most so many; default: the visible GPUs, 1 on a CPU")
    add("budget_s", type=_positive, default=600.0, help="seconds for all runs together (600)")
    add("rounds", type=_whole, default=4, help="starts of one candidate at most (4); each is twice as long")
    add("tolerance", type=_positive, default=0.01, help="differences below this share are not pursued (0.01)")
    add("degrees", nargs="+", type=_degrees, help="auto (all that fit), or such as ulysses=2,cfg=2 ring=4")
    add("batch_sizes", nargs="+", type=_whole, help="images an iteration; default 1 2 4 8")
    add("attention_backends", nargs="+", choices=attention, help="default: all exact ones that can run here")
    add("compile", nargs="+", choices=COMPILE, help="default: off on")
    add("power_limits_w", nargs="+", type=_watts, help="limits of each GPU in watts, none for its own")
    add("approximate", action="store_true", help="search PipeFusion too, whose images are not exactly equal")
    add("gpu_memory_gib", type=_positive, help="leave out what needs more; default: what the GPUs have")
    add("folder", type=Path, help="state and runs; default: run/tune/MODEL")
    add("retry_failed", action="store_true", help="try again what failed in an earlier call")
    add("dry_run", action="store_true", help="list what would be measured, and what cannot work and why")
    add("json", action="store_true", help="print tune.json instead of the report")
    return parser


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _watts(text: str) -> float | str:
    return text if text == "none" else _positive(text)


def _degrees(text: str) -> dict[str, int] | str:
    """`ulysses=2,cfg=2`, the others being 1; or auto."""
    if text == "auto":
        return text
    degrees = dict.fromkeys(DEGREES, 1)
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in DEGREES or not number.isdigit() or int(number) < 1:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no list of degrees; write such as ulysses=2,cfg=2 with some of "
                f"{', '.join(DEGREES)}"
            )
        degrees[name] = int(number)
    if degrees["cfg"] > 2:
        raise argparse.ArgumentTypeError(f"{text!r}: guidance has two halves; use cfg=2")
    return degrees


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
