"""The options of `mlenergy tune` beside a run's."""

from __future__ import annotations

import argparse
import typing
from pathlib import Path
from typing import Any, NoReturn

from mlenergy.diffusion.config.optimizations import AttentionName
from mlenergy.diffusion.errors import UserError

PROG = "mlenergy tune"
DEGREES = ("data", "cfg", "pipefusion", "ring", "ulysses", "tensor")
_COMPILE = ("off", "on", "regional", "whole")


class _Parser(argparse.ArgumentParser):
    """Complains as every other verb does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {PROG} --help")


def tune_parser() -> argparse.ArgumentParser:
    """The options that are tune's own; a mistake in one is a UserError."""
    parser = _Parser(
        prog=PROG,
        allow_abbrev=False,
        usage=f"{PROG} [TUNE OPTIONS] [RUN OPTIONS] workload:text-to-image --workload.model_id MODEL …",
        description="Find the settings that cost least seconds and joules per image. It takes the options of "
        "mlenergy run too: what they fix stays fixed, the rest is searched. Started again, it goes on. "
        "docs/tune.md describes it.",
    )

    def add(name: str, **settings: Any) -> None:
        parser.add_argument(f"--{name}", **settings)

    add("processes", metavar="N", type=_whole, help="use N at most; default: the visible GPUs, 1 on a CPU")
    add("budget_s", metavar="S", type=_positive, default=600.0, help="seconds for all runs together (600)")
    add(
        "rounds",
        metavar="N",
        type=_whole,
        default=4,
        help="starts of a candidate (4), each twice as long",
    )
    add(
        "tolerance",
        metavar="X",
        type=_positive,
        default=0.01,
        help="share that makes no difference (0.01)",
    )
    degrees = "auto (all that fit), or such as ulysses=2,cfg=2 ring=4"
    add("degrees", metavar="D", nargs="+", type=_degrees, help=degrees)
    add("batch_sizes", metavar="N", nargs="+", type=_whole, help="images an iteration; default 1 2 4 8")
    attention = typing.get_args(AttentionName)
    names = f"some of {', '.join(attention)}; default: all exact ones that run here"
    add("attention_backends", metavar="NAME", nargs="+", choices=attention, help=names)
    compiling = f"some of {', '.join(_COMPILE)}; default: off on"
    add("compile", metavar="MODE", nargs="+", choices=_COMPILE, help=compiling)
    add("power_limits_w", metavar="W", nargs="+", type=_watts, help="watts of each GPU, or none: as they are")
    add("approximate", action="store_true", help="search PipeFusion too, whose images are not quite the same")
    add("gpu_memory_gib", metavar="G", type=_positive, help="leave out what needs more; default: the GPUs'")
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
