"""The `mlenergy` command: run, plan, sweep, tune, models, doctor. Each verb imports only what it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mlenergy.diffusion.errors import UserError

_USAGE = """\
usage: mlenergy VERB [OPTIONS]

  run      benchmark: starts torchrun with the number of processes that the degrees need
  plan     print what a run would do and need, and other ways to share it out; starts nothing
           (--json for programs, --processes N, --gpu_memory_gib G)
  sweep    many configurations from a file, here or through Slurm; goes on where it stopped
  tune     find the settings with the lowest seconds and joules per image, within a time budget
  models   list the models with their defaults and parallel modes (--json for programs)
  doctor   check versions, GPUs, NCCL and gloo, energy counters, hub token and cache

run, plan and tune take the options of `python -m mlenergy.diffusion.benchmark`; see `mlenergy run --help`.
"""


def main() -> int:
    """Dispatch to a verb; a user's mistake becomes one line and exit code 2."""
    verbs: dict[str, Callable[[list[str]], int]] = {
        "run": _run,
        "plan": _plan,
        "sweep": _sweep,
        "tune": _tune,
        "models": _models,
        "doctor": _doctor,
    }
    argv = sys.argv[1:]
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0 if argv else 2
    try:
        if argv[0] not in verbs:
            raise UserError(f"there is no verb {argv[0]!r}; use one of {', '.join(verbs)}")
        return verbs[argv[0]](argv[1:])
    except UserError as error:
        print(f"mlenergy: error: {error}", file=sys.stderr)
        return 2


def _run(argv: list[str]) -> int:
    from mlenergy.diffusion.executors.torchrun import launch

    return launch(argv)


def _plan(argv: list[str]) -> int:
    import argparse

    from mlenergy.diffusion.config.resolve import plan_from
    from mlenergy.diffusion.report.cost_view import print_sized_plan

    own = argparse.ArgumentParser(prog="mlenergy plan", add_help=False, allow_abbrev=False)
    own.add_argument("--json", action="store_true")
    own.add_argument("--processes", type=int)
    own.add_argument("--gpu_memory_gib", "--gpu-memory-gib", type=float)
    mine, rest = own.parse_known_args(argv)
    if mine.processes is not None and mine.processes < 1:
        raise UserError(f"--processes {mine.processes} is below 1; use 1 or more")
    _, plan = plan_from(rest, None, prog="mlenergy plan")
    print_sized_plan(plan, mine.processes, mine.gpu_memory_gib, as_json=mine.json)
    return 0


def _sweep(argv: list[str]) -> int:
    from mlenergy.diffusion.sweep.command import main as sweep

    return sweep(argv)


def _tune(argv: list[str]) -> int:
    from mlenergy.diffusion.tune.command import main as tune

    return tune(argv)


def _models(argv: list[str]) -> int:
    from mlenergy.diffusion.report.models_view import print_models

    unknown = [word for word in argv if word != "--json"]
    if unknown:
        raise UserError(f"mlenergy models takes --json only, not {unknown[0]}")
    print_models(as_json="--json" in argv)
    return 0


def _doctor(argv: list[str]) -> int:
    from mlenergy.diffusion.environment.doctor import doctor

    if argv:
        raise UserError(f"mlenergy doctor takes no options, not {argv[0]}")
    return doctor()
