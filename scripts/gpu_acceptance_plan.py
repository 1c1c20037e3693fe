"""Plans every part of scripts/gpu_acceptance.sh as for one H200, on a machine without a GPU.

    scripts/gpu_acceptance.sh --list | python scripts/gpu_acceptance_plan.py

A run's command line is given to `mlenergy plan`; of the other parts, the files and options that they name
must be there. Prints a line a part. Exit code 1: some cannot be planned; the last line names them.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlenergy.diffusion import cli
from mlenergy.diffusion.cost.size import size_plan
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.cards import memory_bytes

ROOT = Path(__file__).parents[1]
GPU = "H200"
_GIB = 1 << 30
_RUN = ["-m", "mlenergy.diffusion.benchmark"]
_VS_BARE = "scripts/bench_vs_bare.py"
# On a machine that lacks a package the script leaves the part out.
_NOT_OFFERED = "needs the package"


def main(lines: Iterable[str]) -> int:
    """Plan each line `part: command`; 1 where one cannot be."""
    failed, count = [], 0
    for line in lines:
        name, _, words = line.strip().partition(": ")
        count += 1
        try:
            print(f"{name}: {planned(shlex.split(words))}")
        except UserError as error:
            if _NOT_OFFERED in str(error):
                print(f"{name}: left out here: {error}")
                continue
            failed.append(name)
            print(f"{name}: cannot be planned: {error}")
    if failed or not count:
        print(
            f"gpu_acceptance: cannot be planned: {' '.join(failed) or 'no part was given'}", file=sys.stderr
        )
        return 1
    print(f"{count} parts; nothing was run")
    return 0


def planned(command: list[str]) -> str:
    """A part in a few words.

    Raises:
        UserError: its command line cannot be understood, cannot work, or needs more than the GPU's memory.
    """
    if command[1:2] == [_VS_BARE]:
        return _both_sides(command[2:])
    if command[1:3] != _RUN:
        return _files(command)
    words = command[3:]
    device = words.index("--device")
    del words[device : device + 2]  # `mlenergy plan` takes a GPU where none is, unless a device is named
    memory_gib = memory_bytes(GPU) / _GIB
    sized = _plan(["--json", "--gpu_memory_gib", f"{memory_gib:.1f}", *words])
    plan, memory = sized["configuration"], sized["sizing"]["memory"]
    peak = f"{memory['peak_bytes'] / _GIB:.1f} GiB"
    if memory["fits"] is not True:
        raise UserError(f"it needs {peak}, and {GPU} has {memory_gib:.1f}")
    size = f"{plan['width_px']}x{plan['height_px']}"
    return f"{plan['model_id']}, {plan['steps']} steps of {size}, about {peak} of {GPU}'s {memory_gib:.0f}"


def _both_sides(words: list[str]) -> str:
    """A part of bench_vs_bare.py, whose two sides are on the GPU at once."""
    import bench_vs_bare  # beside this file; where it is loaded by its path, its folder is not looked into

    options = bench_vs_bare.options_of(words)
    plan = bench_vs_bare.plan_of(options, ("cuda", f"NVIDIA {GPU}"))
    needed_gib = 2 * size_plan(plan).own.memory.peak_bytes / _GIB
    if needed_gib > memory_bytes(GPU) / _GIB:
        raise UserError(f"both sides need {needed_gib:.1f} GiB, and {GPU} has less")
    levers = " ".join(options.levers) or "no lever"
    return f"{plan.spec.model_id}, {plan.steps} steps, bare and ours, {levers}, {needed_gib:.1f} GiB together"


def _plan(words: list[str]) -> dict[str, Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        cli.VERBS["plan"].main(words)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def _files(command: list[str]) -> str:
    paths = [word for word in command[1:] if word.startswith(("tests/", "scripts/"))]
    for path in paths:
        if not (ROOT / path).exists():
            raise UserError(f"there is no {path}")
    if paths and paths[0].startswith("scripts/"):
        known = (ROOT / paths[0]).read_text(encoding="utf-8")
        for option in (word for word in command if word.startswith("--")):
            if f'"{option}"' not in known:
                raise UserError(f"{paths[0]} has no option {option}")
    return " ".join(command[1:])


if __name__ == "__main__":
    sys.exit(main(sys.stdin))
