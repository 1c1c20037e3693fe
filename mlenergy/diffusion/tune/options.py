"""The command line of `mlenergy tune`: what is searched, what stays as given, and for how long."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mlenergy.diffusion.config.args import GIBIBYTES, PROCESSES, SHARE, WATTS, BenchmarkArgs
from mlenergy.diffusion.config.command_line import CommandLine
from mlenergy.diffusion.config.optimizations import AttentionName
from mlenergy.diffusion.config.option import YEAR_S, Option, Range
from mlenergy.diffusion.config.parallelism import AXES, MODES
from mlenergy.diffusion.config.parser import option_group, parse
from mlenergy.diffusion.config.workloads import BATCH
from mlenergy.diffusion.errors import UserError

PROG = "mlenergy tune"
FIRST_ITERS = 3

# What a run's option fixes -> the axis that would search it.
FIXED_BY = {
    "workload.batch_size": "batch_sizes",
    "attention_backend": "attention_backends",
    "use_torch_compile": "compile",
    "compile_mode": "compile",
    "power_limit_w": "power_limits_w",
    **{mode.option: "degrees" for name, mode in MODES.items() if name in AXES},
}
_DEGREE = re.compile("[1-9][0-9]{0,4}")
_NOT_HERE = {
    "target_ci": "tune decides how long it measures; use --tolerance",
    "max_iters": "tune decides how long it measures; use --rounds",
    "overwrite_results": "tune keeps what it has measured; use another --folder to measure anew",
}


@option_group("search")
@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Extent and length of the search. A given option of a run stays fixed; the rest is searched."""

    budget_s: Annotated[float, Range(above=0, most=YEAR_S)] = 600.0
    """Seconds for all runs together."""
    rounds: Annotated[int, Range(least=1, most=20)] = 4
    """The most times that a candidate is started, each time for twice as long."""
    tolerance: Annotated[float, SHARE] = 0.01
    """Share of a mean below which a difference does not count."""
    processes: Annotated[int | None, PROCESSES] = None
    """The most processes to use. Default: one for each visible GPU; 1 on a CPU."""
    gpu_memory_gib: Annotated[float | None, GIBIBYTES] = None
    """Memory of one GPU in GiB; candidates that need more are left out. Default: what the GPUs have."""
    degrees: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DEGREES [DEGREES ...]")] = ()
    """auto, or degrees such as ulysses=2,cfg=2 ring=4. Default: auto, all that fit."""
    batch_sizes: Annotated[tuple[int, ...], BATCH] = ()
    """Images per iteration. Default: 1 2 4 8."""
    attention_backends: Annotated[tuple[AttentionName, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()
    """Attention backends, by the names of --attention_backend. Default: all exact ones that run here."""
    compile: tuple[Literal["off", "on", "regional", "whole"], ...] = ()
    """Ways to compile. Default: off on."""
    exact_options: tuple[Literal["off", "on"], ...] = ()
    """on: --fuse_qkv, --vae_channels_last, --unet_channels_last and --cudnn_benchmark, each where the model
    and the degrees take it. Default: off."""
    power_limits_w: Annotated[tuple[str, ...], tyro.conf.arg(metavar="W [W ...]")] = ()
    """Power limits of each GPU in watts; none: as it is. Default: none."""
    approximate: bool = False
    """Search PipeFusion too, whose images differ slightly from the exact ones."""
    folder: Path | None = None
    """Folder of the search's state and runs. Default: run/tune/MODEL."""
    retry_failed: bool = False
    """Measure again what failed in an earlier call."""
    json: bool = False
    """Print tune.json instead of the report."""


@dataclass(frozen=True)
class TuneCommand(BenchmarkArgs, SearchOptions):
    """Find the settings with the lowest seconds and joules per output. docs/tune.md describes the search.

    It takes the options of mlenergy run too. Started again, it resumes where it stopped.
    """


@dataclass(frozen=True)
class TuneArgs:
    """The command line, checked; None leaves an axis to `axes.axes_of`."""

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
    exact_options: tuple[str, ...] | None
    power_limits_w: tuple[float | None, ...] | None
    approximate: bool
    gpu_memory_gib: float | None
    folder: Path | None
    retry_failed: bool
    dry_run: bool
    json: bool


def read_command(argv: Sequence[str]) -> TuneArgs:
    """Parse, and tell tune's own options from the run's.

    Raises:
        UserError: an option is not understood, does not apply to tune, or is both fixed and searched.
        SystemExit: after --help.
    """
    command = parse(TuneCommand, argv, PROG)
    own = {field.name for field in fields(SearchOptions)} | {"dry_run"}
    words = [*CommandLine.of(TuneCommand).read(argv)]
    given = {word.option.name for word in words if word.option is not None}
    args = TuneArgs(
        words=tuple(word.text for word in words if word.option is None or word.option.name not in own),
        given=frozenset(given - own),
        dry_run=command.dry_run,
        **dict(_checked(command)),
    )
    for name, instead in _NOT_HERE.items():
        if name in given:
            raise UserError(f"--{name} does not apply to {PROG}: {instead}")
    for name, axis in FIXED_BY.items():
        if name in given and getattr(args, axis) is not None:
            raise UserError(f"--{name} fixes what --{axis} searches; leave one of them out")
    return args


def _checked(command: SearchOptions) -> Iterator[tuple[str, Any]]:
    """The search's options by name, as the search takes them."""
    for field in fields(SearchOptions):
        value: Any = getattr(command, field.name)
        if field.name == "degrees":
            value = _degrees(value)
        elif field.name == "power_limits_w":
            value = tuple(None if one == "none" else _watts(one) for one in value) or None
        elif isinstance(value, tuple):
            value = value or None
        yield field.name, value


def _watts(text: str) -> float:
    watts: float = Option("power_limits_w", float, "values", (), numbers=WATTS).value_of(text)
    return watts


def _degrees(texts: Sequence[str]) -> tuple[dict[str, int], ...] | None:
    """`ulysses=2,cfg=2` as degrees, the others being 1; None: all that fit."""
    if "auto" in texts:
        if len(texts) > 1:
            raise UserError(f"--degrees takes auto or a list of degrees, not both; see {PROG} --help")
        return None
    return tuple(map(_one_product, texts)) or None


def _one_product(text: str) -> dict[str, int]:
    degrees = dict.fromkeys(AXES, 1)
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in AXES or not _DEGREE.fullmatch(number):
            known = ", ".join(AXES)
            raise _mistake(
                "degrees", f"cannot read {text!r}; write such as ulysses=2,cfg=2 with some of {known}"
            )
        degrees[name] = int(number)
    if degrees["cfg"] > 2:
        raise _mistake("degrees", f"{text!r} is too many: guidance has two halves; use cfg=2")
    return degrees


def _mistake(name: str, sentence: str) -> UserError:
    return UserError(f"--{name}: {sentence}; see {PROG} --help")
