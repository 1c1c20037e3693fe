"""What is searched: every axis with its values, the likeliest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.parallelism import AXES, MODES
from mlenergy.diffusion.cost.combinations import factorings
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.tune.options import Asked
from mlenergy.diffusion.tune.parser import DEGREES

# Images an iteration, where none are named: as a GPU fills up, more of them gain little.
_BATCH_SIZES = (1, 2, 4, 8)
# Exact kernels; `math` is the slow reference, `sage` computes in 8 bits.
_ATTENTION = ("sdpa", "flash", "efficient", "cudnn", "fa2", "fa3")

_OPTION_OF: dict[str, str] = {mode: MODES[mode].option for mode in MODES if mode in AXES}


@dataclass(frozen=True)
class Axes:
    """Changes to the run's arguments, by axis; one without values of its own leaves them as given."""

    degrees: tuple[Mapping[str, int], ...]  # most processes first
    batch_sizes: tuple[int, ...]
    attention: tuple[str, ...]
    attention_else: str | None  # taken where none of `attention` can be: what the engine takes by itself
    compile: tuple[Mapping[str, Any], ...]  # options of the run
    power_limits_w: tuple[float | None, ...]


def axes_of(asked: Asked, args: BenchmarkArgs, processes: int) -> Axes:
    """The axes of a search.

    Args:
        asked: what the command line says of them.
        args: the run's options; what they fix is the axis' only value.
        processes: devices there are to use.

    Raises:
        UserError: no degrees are left to search.
    """
    given, attention = asked.given, asked.attention_backends
    is_open = attention is None and "attention_backend" not in given
    return Axes(
        degrees=_degrees(asked, args, processes),
        batch_sizes=asked.batch_sizes
        or ((args.workload.batch_size,) if "workload.batch_size" in given else _BATCH_SIZES),
        attention=_ATTENTION if is_open else attention or (args.attention_backend,),
        attention_else="auto" if is_open else None,
        compile=_compile(asked, args),
        power_limits_w=asked.power_limits_w or (args.power_limit_w,),
    )


def with_degrees(args: BenchmarkArgs, degrees: Mapping[str, int]) -> BenchmarkArgs:
    """Arguments with every degree set."""
    options: dict[str, Any] = {_OPTION_OF[name]: degree for name, degree in degrees.items()}
    return replace(args, **{**options, "use_cfg_parallel": degrees["cfg"] == 2})


def _compile(asked: Asked, args: BenchmarkArgs) -> tuple[Mapping[str, Any], ...]:
    if asked.given.intersection(("use_torch_compile", "compile_mode")):
        return ({"use_torch_compile": args.use_torch_compile, "compile_mode": args.compile_mode},)
    return tuple(
        {"use_torch_compile": word != "off", "compile_mode": word if word in ("regional", "whole") else None}
        for word in asked.compile or ("off", "on")
    )


def _degrees(asked: Asked, args: BenchmarkArgs, processes: int) -> tuple[Mapping[str, int], ...]:
    if asked.degrees is not None:
        return asked.degrees
    fixed = {name: option for name, option in _OPTION_OF.items() if option in asked.given}
    wanted = {name: _degree(args, option) for name, option in fixed.items()}
    found = tuple(
        degrees
        for count in range(processes, 0, -1)
        if processes % count == 0
        for degrees in _products(count)
        if all(degrees[name] == degree for name, degree in wanted.items())
    )
    if not found:
        options = ", ".join(f"--{option}" for option in fixed.values())
        raise UserError(
            f"no degrees with the given {options} make {processes} processes or a part of them; "
            "change --processes or the degrees"
        )
    return found


def _degree(args: BenchmarkArgs, option: str) -> int:
    value = getattr(args, option)
    return (2 if value else 1) if isinstance(value, bool) else int(value)


def _products(count: int) -> Iterator[Mapping[str, int]]:
    """Every way to make so many processes; the guidance has two halves at most."""
    for factors in factorings(count, parts=len(DEGREES)):
        degrees = dict(zip(DEGREES, factors, strict=True))
        if degrees["cfg"] <= 2:
            yield degrees
