"""The entry that torchrun starts: `torchrun --nproc_per_node=4 -m mlenergy.diffusion.benchmark …`.

Its top level stays light: children that measuring spawns import this file again.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    # Started by file path: Python has put this folder first, where `cost` or `models` could shadow a
    # library's module; the folder that holds the package takes its place.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

if __name__ == "__main__":
    from mlenergy.diffusion.environment.platforms import end_elsewhere

    end_elsewhere()  # before the imports below, which ask for what other systems lack

    from mlenergy.diffusion.supervision.parent import end_with_launcher
    from mlenergy.diffusion.supervision.starting import answer_signals

    answer_signals()  # and these take a while on a slow disk
    end_with_launcher()

from mlenergy.diffusion.config.resolve import plan_from
from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.environment.device import unused_gpu
from mlenergy.diffusion.environment.imports import large_imports
from mlenergy.diffusion.errors import quiet_pipe
from mlenergy.diffusion.report.plan_view import print_plan
from mlenergy.diffusion.report.progress import waiting
from mlenergy.diffusion.report.run_view import print_finished
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import read_result
from mlenergy.diffusion.supervision.exit_codes import exit_code_of
from mlenergy.diffusion.supervision.folder import result_folder

PROGRAM = "python -m mlenergy.diffusion.benchmark"


def main() -> int:
    """Run the command line; every failure becomes one line from one rank and an exit code."""
    return quiet_pipe(lambda: exit_code_of(_plan_then_run))


def _plan_then_run(argv: list[str], rank: Rank) -> None:
    """Print the plan, or run it unless its result is there already."""
    is_dry = "--dry_run" in argv or "--dry-run" in argv
    # Without processes the degrees decide how many there would be.
    args, plan = plan_from(argv, None if is_dry and not rank.launched else rank.world_size, PROGRAM)
    if args.dry_run:
        print_plan(plan)
        return
    if rank.is_main and (warning := unused_gpu(args.device, plan.device)) is not None:
        print(f"mlenergy: warning: {warning}", file=sys.stderr, flush=True)
    paths = RunPaths.of(plan)
    with result_folder(
        paths,
        rank,
        overwrite=args.overwrite_results,
        allow_no_effect=args.allow_no_effect,
        debug=args.debug,
    ) as folder:
        if folder.is_done and rank.is_main:
            if args.reference is not None:
                from mlenergy.diffusion.results.compare import compare_finished

                compare_finished(paths, plan, Path(args.reference).expanduser())
            result = read_result(paths.results)
            if result is not None:
                print_finished(result, paths, folder.terminal.out)
        if folder.is_done and rank.world_size == 1:
            return
        # Here, so that a folder that cannot be written is named at once, and torch's warnings go to the log.
        progress = waiting("importing torch", folder.terminal.err, enabled=rank.is_main)
        with progress, large_imports():
            from mlenergy.diffusion.run import run

        run(args, plan, rank, folder)


class _CallableModule(types.ModuleType):
    """This module, where its name is taken for the function `mlenergy.diffusion.benchmark`.

    Python puts an imported submodule over the package's attribute of the same name.
    """

    def __call__(self, model_id: str, **options: Any) -> Any:
        from mlenergy.diffusion.interface import benchmark

        return benchmark(model_id, **options)


if __name__ == "__main__":
    sys.exit(main())
sys.modules[__name__].__class__ = _CallableModule
