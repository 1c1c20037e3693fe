"""The verb: `mlenergy export DIR --format FORMAT`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mlenergy.diffusion.config.parser import option_group, parse
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.export.derived import Prices
from mlenergy.diffusion.export.runs import Export, Run, complete_runs
from mlenergy.diffusion.results.find import require_folder

PROG = "mlenergy export"
_SHOWN = 20  # of what is left out

Format = Literal["csv", "parquet", "mlenergy", "emissions", "openmetrics", "wandb", "mlflow"]
_DEFAULT_OUT: dict[Format, str] = {
    "csv": "results.csv",
    "parquet": "results.parquet",
    "mlenergy": "mlenergy-data",
    "emissions": "emissions.csv",
    "openmetrics": "results.prom",
    "wandb": ".",
    "mlflow": "mlflow.db",
}


@option_group()
@dataclass(frozen=True)
class ExportArgs:
    """Write all complete results below a folder in a format that other programs read."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder with results, at any depth."""
    format: Format
    """csv, parquet: a table, one row a result. mlenergy: files of the ML.ENERGY data toolkit. emissions:
    CodeCarbon's table. openmetrics: for Prometheus. wandb, mlflow: local stores of these trackers."""
    out: Path | None = None
    """File to write, or folder for mlenergy and wandb. Default: results.csv, results.parquet, mlenergy-data,
    emissions.csv, results.prom, the current folder or mlflow.db."""
    grid_g_per_kwh: float | None = None
    """Grams of CO2 equivalent that a kilowatt-hour causes where the run was made; needed for emissions, which
    are never computed from an assumed one."""
    usd_per_gpu_hour: float | None = None
    """Rent of a GPU, for the dollars of 1,000 images or videos. Default: not computed."""
    usd_per_kwh: float | None = None
    """Price of electricity, for the dollars of 1,000 images or videos. Default: not computed."""


def main(argv: list[str]) -> int:
    """Write an export, and say what it left out.

    Raises:
        UserError: there is no such folder or no complete result in it, an option is missing or cannot be, or
            the export cannot be written.
    """
    args = parse(ExportArgs, argv, PROG)
    _check(args)
    out = Path(_DEFAULT_OUT[args.format]) if args.out is None else args.out
    export = Export()
    runs = complete_runs(args.folder, export)
    first = next(runs, None)
    if first is None:
        raise UserError(f"there is no complete result below {args.folder}{_reasons(export)}")
    _writer(args, out, export)(chain([first], runs))
    what = "1 result" if export.written == 1 else f"{export.written:,} results"
    print(f"{out}: {what} ({args.format})")
    for path, reason in export.left_out[:_SHOWN]:
        print(f"  left out: {path}: {reason}")
    if len(export.left_out) > _SHOWN:
        print(f"  left out: {len(export.left_out) - _SHOWN:,} more")
    if not export.written:
        print(f"mlenergy: error: no result fits the format {args.format}", file=sys.stderr)
        return 2
    return 0


def _check(args: ExportArgs) -> None:
    require_folder(args.folder)
    for name in ("grid_g_per_kwh", "usd_per_gpu_hour", "usd_per_kwh"):
        value = getattr(args, name)
        if value is not None and not 0 <= value < float("inf"):
            raise UserError(f"--{name} {value} cannot be; give a number of 0 or more")
    if args.format == "emissions" and args.grid_g_per_kwh is None:
        raise UserError(
            "--format emissions needs --grid_g_per_kwh, the grams of CO2 equivalent that a kilowatt-hour "
            "causes where the runs were made; your grid operator or electricity supplier publishes it"
        )
    if args.format != "emissions" and args.grid_g_per_kwh is not None:
        raise UserError("--grid_g_per_kwh is for --format emissions; leave it out, or choose that format")
    no_money = ("mlenergy", "emissions", "openmetrics")
    if args.format in no_money and (args.usd_per_gpu_hour is not None or args.usd_per_kwh is not None):
        raise UserError(f"--format {args.format} has no place for prices; leave them out, or choose csv")


def _writer(args: ExportArgs, out: Path, export: Export) -> Callable[[Iterable[Run]], None]:
    """The function that writes the format. Each imports what it needs: pyarrow takes a third of a second."""
    prices = Prices(args.usd_per_gpu_hour, args.usd_per_kwh)
    match args.format:
        case "csv" | "parquet":
            from mlenergy.diffusion.export.tables import write_csv, write_parquet

            write = write_csv if args.format == "csv" else write_parquet
            return lambda runs: write(runs, out, export, prices)
        case "mlenergy":
            from mlenergy.diffusion.export.toolkit import write_toolkit

            return lambda runs: write_toolkit(runs, out, export)
        case "emissions":
            from mlenergy.diffusion.export.emissions import write_emissions

            assert args.grid_g_per_kwh is not None
            factor = args.grid_g_per_kwh
            return lambda runs: write_emissions(runs, out, export, factor)
        case "openmetrics":
            from mlenergy.diffusion.export.openmetrics import write_openmetrics

            return lambda runs: write_openmetrics(runs, out, export)
        case "wandb" | "mlflow":
            from mlenergy.diffusion.export.trackers import write_mlflow, write_wandb

            track = write_wandb if args.format == "wandb" else write_mlflow
            return lambda runs: track(runs, out, export, prices)


def _reasons(export: Export) -> str:
    if not export.left_out:
        return "; name a folder that holds some"
    path, reason = export.left_out[0]
    more = f", and {len(export.left_out) - 1} more" if len(export.left_out) > 1 else ""
    return f"; {path}: {reason}{more}"
