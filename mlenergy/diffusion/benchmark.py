"""The entry that torchrun starts: `torchrun --nproc_per_node=4 -m mlenergy.diffusion.benchmark …`.

Its top level stays light: children that measuring spawns import this file again.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):
    # Started by file path: Python has put this folder first, where `args` or `models` could shadow a
    # library's module; the folder that holds the package takes its place.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from mlenergy.diffusion.supervision.exit_codes import exit_code_of

if TYPE_CHECKING:
    from mlenergy.diffusion.config.args import BenchmarkArgs
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.distributed.cluster import Cluster, Rank
    from mlenergy.diffusion.engine import Engine
    from mlenergy.diffusion.measure.energy.meter import Meter, MeterOptions
    from mlenergy.diffusion.measure.statistics import StopRule
    from mlenergy.diffusion.prompts.sampling import PromptSet
    from mlenergy.diffusion.report.progress import RunProgress
    from mlenergy.diffusion.results.paths import RunPaths
    from mlenergy.diffusion.results.save import Keeping, Measured
    from mlenergy.diffusion.supervision.supervise import Supervisor
    from mlenergy.diffusion.supervision.terminal import Terminal

PROGRAM = "python -m mlenergy.diffusion.benchmark"


def main() -> int:
    """Run the command line; every failure becomes one line from one rank and an exit code."""
    return exit_code_of(_plan_then_run)


def _plan_then_run(argv: list[str], rank: Rank) -> None:
    from mlenergy.diffusion.config.resolve import plan_from

    args, plan = plan_from(argv, rank.world_size if rank.launched or not _is_dry(argv) else None, PROGRAM)
    if args.dry_run:
        from mlenergy.diffusion.report.plan_view import print_plan

        print_plan(plan)
    else:
        _run(args, plan, rank)


def _run(args: BenchmarkArgs, plan: Plan, rank: Rank) -> None:
    """Take the result folder, start the process group, and work unless the result is there already."""
    from mlenergy.diffusion.distributed.cluster import Cluster
    from mlenergy.diffusion.results.files import is_complete
    from mlenergy.diffusion.results.lock import result_lock
    from mlenergy.diffusion.results.paths import RunPaths
    from mlenergy.diffusion.results.swap import recover_interrupted_swap
    from mlenergy.diffusion.supervision.terminal import redirect_output, spare_log_path

    paths = RunPaths.of(plan)
    log, is_done = spare_log_path(rank.rank), False
    with ExitStack() as stack:
        if rank.is_main:
            stack.enter_context(result_lock(paths.lock))
            recover_interrupted_swap(paths)
            is_done = not args.overwrite_results and is_complete(paths)
            log = paths.folder / "driver_log.skipped.txt" if is_done else paths.driver_log
        terminal = stack.enter_context(redirect_output(log, debug=args.debug))
        if not (is_done and rank.world_size == 1):
            cluster = Cluster.start(rank, plan.device)
            is_done = cluster.broadcast_object(is_done)
            if not is_done:
                _work(args, plan, cluster, paths, terminal)
            cluster.close()
        if is_done:
            print(f"{paths.results} is complete; --overwrite_results measures again", file=terminal.out)
    if log != paths.driver_log:
        log.unlink(missing_ok=True)


def _work(args: BenchmarkArgs, plan: Plan, cluster: Cluster, paths: RunPaths, terminal: Terminal) -> None:
    """Prompts, engine, measurement; then rank 0 saves and shows the result."""
    from mlenergy.diffusion.engines import load_engine
    from mlenergy.diffusion.measure.energy.meter import make_meter
    from mlenergy.diffusion.measure.energy.power_limit import power_limit
    from mlenergy.diffusion.prompts.sampling import shared_prompts
    from mlenergy.diffusion.report.progress import RunProgress
    from mlenergy.diffusion.results.save import save_and_show
    from mlenergy.diffusion.supervision.supervise import supervised

    with (
        supervised(plan, cluster, paths, args.hang_timeout_s) as supervisor,
        RunProgress(terminal.err, plan, speaks=cluster.rank.is_main) as progress,
        ExitStack() as until_saved,
    ):
        supervisor.enter("loading")
        prompts = shared_prompts(plan, cluster)
        keeping = _keeping(args, plan, cluster, prompts)
        meter = make_meter(cluster, cluster.device, _meter_options(args))
        until_saved.enter_context(power_limit(cluster, meter, plan.power_limit_w))
        progress.say(f"loading {plan.spec.model_id}")
        with cluster.raise_on_all_ranks():
            engine = load_engine(plan, cluster)
        supervisor.enter("measuring")
        measured = _measure(plan, cluster, engine, meter, prompts, supervisor, progress)
        supervisor.enter("saving")
        until_saved.close()
        progress.close()
        save_and_show(plan, cluster, paths, terminal, prompts, measured, engine, supervisor, keeping)
        engine.close()


def _measure(
    plan: Plan,
    cluster: Cluster,
    engine: Engine,
    meter: Meter,
    prompts: PromptSet,
    supervisor: Supervisor,
    progress: RunProgress,
) -> Measured:
    from mlenergy.diffusion.engines.denoiser_calls import denoiser_calls
    from mlenergy.diffusion.measure.session import measure
    from mlenergy.diffusion.measure.stages import StageProbe
    from mlenergy.diffusion.prompts.sampling import batches_of

    def on_iteration(kind: str, index: int, seconds: float) -> None:
        supervisor.on_iteration(kind, index, seconds)
        progress.on_iteration(kind, index, seconds)

    return measure(
        engine.generate,
        batches_of(prompts.warmup_requests, plan.batch_size),
        batches_of(prompts.requests, plan.batch_size),
        meter,
        cluster,
        cluster.device,
        StageProbe(engine.components(), plan.steps, cluster.device, denoiser_calls(plan)),
        on_iteration,
        components=engine.components(),
        keep_images=plan.save_images,
        stop_rule=supervisor.or_signal(_stop_rule(plan)),
    )


def _keeping(args: BenchmarkArgs, plan: Plan, cluster: Cluster, prompts: PromptSet) -> Keeping:
    """The reference is looked at on rank 0 alone, and before anything that takes long."""
    from mlenergy.diffusion.results.save import Keeping

    reference = None
    with cluster.raise_on_all_ranks():
        if args.reference is not None and cluster.rank.is_main:
            from mlenergy.diffusion.quality.reference import find_reference

            certain = prompts.requests[: plan.benchmark_iters * plan.batch_size]
            reference = find_reference(args.reference, plan, certain)
    return Keeping(allow_no_effect=args.allow_no_effect, reference=reference)


def _meter_options(args: BenchmarkArgs) -> MeterOptions:
    from mlenergy.diffusion.measure.energy.meter import MeterOptions

    return MeterOptions(
        energy_gpus=args.energy_gpus,
        sample_period_s=args.sample_period_s,
        idle_s=args.idle_s,
        require_energy=args.require_energy,
    )


def _stop_rule(plan: Plan) -> StopRule | None:
    from mlenergy.diffusion.measure.statistics import StopRule

    if plan.target_ci is None:
        return None
    return StopRule(plan.target_ci, least=plan.benchmark_iters, most=plan.max_iters)


def _is_dry(argv: list[str]) -> bool:
    return "--dry_run" in argv or "--dry-run" in argv


if __name__ == "__main__":
    sys.exit(main())
