"""Shares of a measured run's time: matrix work at the GPU's seen ceiling, attention, memory traffic, waiting.

    python scripts/roofline.py RESULT... [--json]

RESULT is a results.json, a result folder, or one that holds some. Each stage's measured seconds are split by
the terms of the forecast's formula: matrix products at the rate that published runs reach on this GPU,
attention, communication, bytes that all other kernels move, launches that the GPU waits for. Waiting is what
no term accounts for. Then it names what acts on the largest shares. Exit code 0: all results were split; 2:
some were not, with a line each on stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from mlenergy.diffusion.errors import UserError, quiet_pipe
from mlenergy.diffusion.forecast.levers import Lever
from mlenergy.diffusion.forecast.roofline import KINDS, WAITING, Roofline, StageShares, roofline_of
from mlenergy.diffusion.results.find import RESULT, expand, find_results
from mlenergy.diffusion.results.read import load_result

_COLUMN = 14
_LEVERS_SHOWN = 3


def main(argv: list[str] | None = None) -> int:
    """Print every result's shares; 2 where one could not be split."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", metavar="RESULT")
    parser.add_argument("--json", action="store_true", help="print JSON, a list of results")
    args = parser.parse_args(argv)
    split, failed = [], False
    try:
        files = list(_files(args.results))
    except UserError as error:
        print(f"roofline: {error}", file=sys.stderr)
        return 2
    for file in files:
        try:
            split.append((file, _read(file)))
        except UserError as error:
            failed = True
            print(f"roofline: {file}: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps([{"file": str(file), **found.as_dict()} for file, found in split], indent=1))
    else:
        print("\n\n".join(as_text(file, found) for file, found in split), end="\n" if split else "")
    return 2 if failed else 0


def _files(words: list[str]) -> Iterator[Path]:
    for place in expand(words):
        if not place.is_dir():
            yield place
            continue
        found = [place / one.folder / RESULT for one in find_results(place) if one.file == RESULT]
        if not found:
            raise UserError(f"no {RESULT} is in {place}; name a folder that holds one")
        yield from found


def _read(file: Path) -> Roofline:
    loaded = load_result(file)
    if loaded.content is None:
        raise UserError(f"it cannot be used: {loaded.record.reason or loaded.record.state}")
    return roofline_of(loaded.content)


def as_text(file: Path, found: Roofline) -> str:
    """Table of stages and kinds, notes, and levers."""
    lines = [
        str(file),
        f"{found.model_id} on {found.gpus} x {found.gpu}, matrix work at {found.matmul_tflops:.0f} TFLOP/s",
        "".join(name.rjust(_COLUMN) for name in ("stage", "seconds", *KINDS, WAITING)),
        *(_row(name, part) for name, part in {**found.stages, "whole": found.whole}.items()),
        *(f"note: {note}" for note in found.notes),
        *(
            f"{'pays most' if number == 0 else 'then'}: {_lever(lever)}"
            for number, lever in enumerate(found.levers[:_LEVERS_SHOWN])
        ),
        f"constants: {found.source}",
    ]
    return "\n".join(lines)


def _row(name: str, part: StageShares) -> str:
    shares = part.shares
    cells = ["-" if shares is None else f"{shares[kind]:.1%}" for kind in (*KINDS, WAITING)]
    return "".join(cell.rjust(_COLUMN) for cell in (name, f"{part.seconds:.4g}", *cells))


def _lever(lever: Lever) -> str:
    todo = ", or ".join(lever.options) or "every known option that acts on it is in use"
    return f"{lever.kind} of {lever.stage}, {lever.share:.1%} of the time: {todo}"


if __name__ == "__main__":
    sys.exit(quiet_pipe(main))
