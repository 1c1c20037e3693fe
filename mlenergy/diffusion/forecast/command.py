"""The verb: constants of forecasts from own results, `mlenergy calibrate RESULTS`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from mlenergy.diffusion.config.parser import option_group, parse
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.own_runs import OwnRuns, own_runs
from mlenergy.diffusion.results.atomic import write_json

PROG = "mlenergy calibrate"
LEAST_RUNS = 10  # with fewer, errors of runs left out say nothing
_SHOWN = 20  # of what is left out


@option_group()
@dataclass(frozen=True)
class CalibrateArgs:
    """Fit the constants of forecasts to own results, for mlenergy plan --gpu NAME --calibration FILE."""

    folder: tyro.conf.Positional[Path]
    """Folder with results, at any depth."""
    out: Path = Path("forecast.json")
    """File of constants to write; an older one is replaced."""


def main(argv: list[str]) -> int:
    """Read results, fit, write the file, and print how wrong its forecasts are.

    Raises:
        UserError: there is no such folder, or it holds too few runs that the formula holds for.
    """
    args = parse(CalibrateArgs, argv, PROG)
    found = own_runs(args.folder)
    _print_left_out(found)
    if len(found.rows) < LEAST_RUNS:
        raise UserError(
            f"{args.folder} holds {len(found.rows)} runs that constants can be fitted to; {LEAST_RUNS} are "
            "the least: eager runs on GPUs, in bfloat16 or float16, of several models, batches or degrees"
        )
    from mlenergy.diffusion.forecast.calibration import content_of  # scipy takes half a second
    from mlenergy.diffusion.forecast.errors import misses

    content = content_of(found.rows, misses(found.rows), f"{len(found.rows)} runs in {args.folder}")
    write_json(args.out, content, "--out")
    for kind, quantities in content["errors"].items():
        for quantity, error in quantities.items():
            print(
                f"{kind:12} {quantity:8} {error['rows']:5} runs left out: median error "
                f"{error['median_error']:.1%}, 90th percentile {error['p90_error']:.1%}"
            )
    gpu = next(iter(content["time"]))
    print(f"wrote {args.out}; use it: mlenergy plan --gpu {gpu} --calibration {args.out}")
    return 0


def _print_left_out(found: OwnRuns) -> None:
    for folder, reason in found.left_out[:_SHOWN]:
        print(f"left out: {folder}: {reason}")
    if len(found.left_out) > _SHOWN:
        print(f"left out: {len(found.left_out) - _SHOWN} more")
