"""One run on one rank: prompts, load, measure, print, save, and then judge.

The numbers are on the terminal and on disk before anything that may fail looks at what made them.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.cost.flops import StageFlops
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Engine
from mlenergy.diffusion.engines import import_engine, load_engine
from mlenergy.diffusion.engines.call import denoiser_calls
from mlenergy.diffusion.engines.optimizations.effects import has_checked_effect, optimizations_without_effect
from mlenergy.diffusion.environment.device import check_device_name
from mlenergy.diffusion.environment.gpu_users import gpu_users
from mlenergy.diffusion.environment.gpus import used_gpu
from mlenergy.diffusion.environment.record import environment_record, node_record
from mlenergy.diffusion.errors import CheckError, Interrupted, NoEffectError, UserError
from mlenergy.diffusion.measure.energy.meter import Meter, MeterOptions, make_meter
from mlenergy.diffusion.measure.energy.power_limit import power_limit
from mlenergy.diffusion.measure.memory import MemoryWatch
from mlenergy.diffusion.measure.outputs import Pixels
from mlenergy.diffusion.measure.samples import Measurement, MeasurementWarning
from mlenergy.diffusion.measure.session import Instruments, Schedule, measure
from mlenergy.diffusion.measure.stages import StageProbe
from mlenergy.diffusion.measure.statistics import StopRule
from mlenergy.diffusion.prompts.drawing import shared_prompts
from mlenergy.diffusion.prompts.sampling import PromptSet, batches_of
from mlenergy.diffusion.quality.reference import Reference, find_reference, similarity
from mlenergy.diffusion.report.progress import RunProgress
from mlenergy.diffusion.report.run_view import print_effects, print_summary
from mlenergy.diffusion.results.build import RunRecord, build_result, efficiency_keys
from mlenergy.diffusion.results.efficiency import CountAhead, efficiency_section, flops_of_ranks
from mlenergy.diffusion.results.executed import planned_work
from mlenergy.diffusion.results.lock import check_held
from mlenergy.diffusion.results.media import latent_names, output_names
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import read_result
from mlenergy.diffusion.results.save import (
    found_effects,
    no_effect_warnings,
    pending_effects,
    save_effects_reason,
    save_result,
    save_run,
    save_stopped,
)
from mlenergy.diffusion.supervision.folder import ResultFolder
from mlenergy.diffusion.supervision.supervise import Supervisor, supervised
from mlenergy.diffusion.supervision.terminal import Terminal
from mlenergy.diffusion.weights.read_ahead import read_ahead

_LATE_WARNINGS = ("no_similarity", "no_effect")  # found after the summary has been printed


@dataclass(frozen=True)
class RunContext:
    """Everything that the steps of a run share."""

    plan: Plan
    cluster: Cluster
    paths: RunPaths
    terminal: Terminal
    supervisor: Supervisor


def run(args: BenchmarkArgs, plan: Plan, rank: Rank, folder: ResultFolder) -> None:
    """Start the process group and measure, unless rank 0 has found a complete result. Every rank calls it.

    Raises:
        UserError: one line that says what to do.
        Interrupted: a signal ended the measuring; the windows until then are saved.
    """
    cluster = Cluster.start(rank, plan.device)
    if not cluster.broadcast_object(folder.is_done):
        with supervised(plan, cluster, folder, args.hang_timeout_s) as supervisor:
            _measure_and_save(args, RunContext(plan, cluster, folder.paths, folder.terminal, supervisor))
    cluster.close()


def _measure_and_save(args: BenchmarkArgs, context: RunContext) -> None:
    plan, cluster, supervisor = context.plan, context.cluster, context.supervisor
    with (
        RunProgress(context.terminal.err, plan, enabled=cluster.rank.is_main) as progress,
        ExitStack() as until_saved,
    ):
        supervisor.enter("loading")
        with cluster.raise_on_all_ranks():
            if cluster.rank.is_main:
                check_device_name(plan.device_name, cluster.device)
        prompts = shared_prompts(plan, cluster)
        reference = _find_reference(args, context, prompts)
        progress.say(f"loading {plan.spec.model_id}")
        ahead = read_ahead(plan, cluster.rank)
        count = _begin_count(args, context, progress) if Path(plan.weights_from).is_dir() else None

        def import_libraries() -> None:
            with cluster.raise_on_all_ranks():
                import_engine(plan)

        meter = make_meter(cluster, cluster.device, _meter_options(args), import_libraries)
        until_saved.enter_context(power_limit(cluster, meter, plan.power_limit_w))
        users = until_saved.enter_context(
            gpu_users([gpu.uuid for gpu in meter.gpus], context.paths.folder.name)
        )
        with cluster.raise_on_all_ranks():
            engine = load_engine(plan, cluster)
        read_before = None if ahead is None else ahead.end()  # now, so that no window lies beside it
        # A model of the hub is on this machine by now, and is counted here. The other ranks wait to warm up.
        not_counted = _end_count(args, count or _begin_count(args, context, progress))
        supervisor.enter("measuring")
        progress.begin_iterations()
        latents: list[torch.Tensor] | None = [] if plan.save_latents else None
        measured = _measure(context, engine, meter, prompts, progress, latents)
        supervisor.enter("saving")
        shared = cluster.gather_object(users.others()) or []
        until_saved.close()
        progress.close()
        nodes = cluster.gather_object(node_record())
        own_load = asdict(engine.report) | ({} if ahead is None else {"read_ahead": read_before})
        loads = cluster.gather_object(own_load)
        used = cluster.gather_object(used_gpu(cluster.device))
        signum = cluster.broadcast_object(supervisor.interrupted_by)
        measurement, pixels = measured
        record: RunRecord | None = None
        if measurement is not None:
            warnings = [MeasurementWarning("shared_gpu", line) for lines in shared for line in lines]
            measurement = replace(measurement, warnings=(*measurement.warnings, *warnings))
            environment = environment_record(sys.argv, facts=engine.report.facts, nodes=nodes)
            facts = engine.report.facts
            planned = planned_work(plan, facts.get("denoiser_calls"), facts.get("scheduler"))
            environment["devices"] = [None if gpu is None else asdict(gpu) for gpu in used or ()]
            record = RunRecord(plan, measurement, prompts, environment, loads, planned=planned)
        if signum is not None:
            if record is not None:
                check_held(context.paths.lock)
                result_until_then = build_result(record, [None] * record.completed)
                save_stopped(context.paths, result_until_then, record.measured_requests, pixels)
            where = context.paths.interrupted
            raise Interrupted(signum, f"what was measured until then is in {where}")
        result: dict[str, Any] | None = None
        with cluster.raise_on_all_ranks():  # the others wait: looking at effects takes all of them
            if record is not None:
                work = _efficiency(record, not_counted)
                result = _print_and_save(
                    context, replace(record, efficiency=work), pixels, reference, latents or ()
                )
                _judge_work(result)
        signum = cluster.broadcast_object(supervisor.watch.stop_signal)
        if signum is not None:
            if result is not None:
                save_effects_reason(context.paths, f"interrupted by {signal.Signals(signum).name}")
            raise Interrupted(signum, f"all was measured and is in {context.paths.results}, but not judged")
        recount = None if record is None or not args.count_flops else partial(_efficiency_as_run, record)
        _judge_effects(context, engine, result, args.allow_no_effect, recount)
        # The engine is not closed: the process ends, which takes less than looking for what could be freed.


def _find_reference(args: BenchmarkArgs, context: RunContext, prompts: PromptSet) -> Reference | None:
    """Look at the reference on rank 0 alone, and before anything that takes long.

    Raises:
        UserError: on every rank: it does not fit this run.
    """
    plan, reference = context.plan, None
    with context.cluster.raise_on_all_ranks():
        if args.reference is not None and context.cluster.rank.is_main:
            certain = prompts.requests[: plan.benchmark_iters * plan.batch_size]
            place = Path(args.reference).expanduser()
            reference = find_reference(place, read_result(place / "results.json"), plan, certain)
    return reference


def _measure(
    context: RunContext,
    engine: Engine,
    meter: Meter,
    prompts: PromptSet,
    progress: RunProgress,
    latents: list[torch.Tensor] | None,
) -> tuple[Measurement | None, list[Pixels]]:
    """Warm up and measure: on rank 0 the measurement and each window's images, elsewhere None and none."""
    plan, cluster, supervisor = context.plan, context.cluster, context.supervisor
    rule: StopRule | None = None
    if plan.target_ci is not None:
        rule = StopRule(plan.target_ci, least=plan.benchmark_iters, most=plan.max_iters)

    def on_iteration(kind: str, index: int, seconds: float) -> None:
        supervisor.on_iteration(kind, index, seconds)
        progress.on_iteration(kind, index, seconds)

    components, device = engine.components(), cluster.device
    stages, calls = plan.spec.family.stages, denoiser_calls(plan)
    return measure(
        engine.generate,
        Schedule(
            warmup=batches_of(prompts.warmup_requests, plan.batch_size),
            measured=batches_of(prompts.requests, plan.batch_size),
            stop_rule=supervisor.or_signal(rule),
        ),
        Instruments(
            meter,
            StageProbe(components, stages, plan.steps, device, calls),
            MemoryWatch(device, components),
        ),
        cluster,
        on_iteration=on_iteration,
        keep_outputs=plan.save_images,
        latents=latents,
    )


def _begin_count(args: BenchmarkArgs, context: RunContext, progress: RunProgress) -> CountAhead | None:
    """On rank 0, where FLOPs are wanted and may have to be counted; None elsewhere."""
    if context.cluster.rank.is_main and args.count_flops:
        return CountAhead(context.plan, progress.say)
    return None


def _end_count(args: BenchmarkArgs, count: CountAhead | None) -> str | None:
    """Wait for the count, before any window; returns why the FLOPs are not known, or None."""
    if not args.count_flops:
        return "not counted yet for this model, and --no_count_flops was given"
    return None if count is None else count.join()


def _efficiency(
    record: RunRecord, not_counted: str | None, as_run: StageFlops | None = None
) -> dict[str, Any]:
    tf32 = bool(torch.backends.cuda.matmul.allow_tf32)
    names = {gpu["name"] for gpu in record.environment["devices"] if gpu is not None}
    return efficiency_section(
        record.plan, record.measurement.iterations, tf32, record.planned, not_counted, sorted(names), as_run
    )


def _efficiency_as_run(record: RunRecord, ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Keys of a result that change once the work was counted as it ran; none where it was known before."""
    if not record.plan.spec.family.counts_as_run:
        return {}
    try:
        found = _efficiency(record, None, flops_of_ranks(record.plan, ranks))
    except UserError as error:
        found = _efficiency(record, str(error))
    return efficiency_keys(found)


def _print_and_save(
    context: RunContext,
    record: RunRecord,
    pixels: Sequence[Pixels],
    reference: Reference | None,
    latents: Sequence[torch.Tensor] = (),
) -> dict[str, Any]:
    """Print the numbers, then write every file. On rank 0.

    Returns:
        The content of results.json; its effects are not known yet.

    Raises:
        UserError: a file cannot be written.
    """
    paths = context.paths
    files: Sequence[str | None] = [None] * record.completed
    if pixels:
        files = output_names(paths, record.measured_requests, videos=record.plan.makes_video)
    result = build_result(record, files)
    if latents:
        for output, name in zip(
            result["generation_results"], latent_names(paths, record.measured_requests), strict=True
        ):
            output["latents"] = name
    result |= pending_effects(has_checked_effect(context.plan.optimizations))
    # With --debug a reader that has closed the pipe would cost the result: rich turns that into SystemExit.
    with suppress(OSError, SystemExit):
        print_summary(result, paths, context.terminal.out)
    check_held(paths.lock)
    if reference is not None:  # before saving: the reference may be the result that is replaced
        result |= _similarity(reference, pixels, result["warnings"])
    result["digests"] = save_run(paths, record, pixels, result, latents)
    return result


def _judge_work(result: dict[str, Any]) -> None:
    """Refuse a result, saved before, whose windows held other work than the plan's.

    Raises:
        UserError: the denoiser ran more or less than planned; the result is kept, but not complete.
    """
    if result["executed_failed"]:
        raise UserError(result["executed_failed"][0])


def _similarity(
    reference: Reference, pixels: Sequence[Pixels], warnings: list[dict[str, Any]]
) -> dict[str, Any]:
    try:
        return {"similarity": similarity(reference, np.concatenate(list(pixels)))}
    except Exception as error:  # a reference that has changed since, or no memory for it
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        text = f"similarity to {reference.folder} is not known ({reason})"
        warnings.append({"code": "no_similarity", "message": text})
        return {}


def _judge_effects(
    context: RunContext,
    engine: Engine,
    result: dict[str, Any] | None,
    allow_no_effect: bool,
    recount: Callable[[Sequence[dict[str, Any]]], dict[str, Any]] | None,
) -> None:
    """Look at what the optimizations did, add it to the saved result, and complete the run; on every rank.

    Args:
        context: of the run.
        engine: that was measured; it generates once more.
        result: as it is saved, on rank 0; None elsewhere.
        allow_no_effect: complete a result although an optimization did nothing.
        recount: effects of the ranks -> keys of the result that they change, on rank 0.

    Raises:
        NoEffectError: on every rank: an optimization did nothing; the result is kept as `effects_failed`.
        CheckError: the look itself failed; the result is kept with the reason.
        UserError: results.json cannot be written anew.
    """
    plan, cluster, supervisor, paths = context.plan, context.cluster, context.supervisor, context.paths
    supervisor.enter("effects")
    # The watch over the run calls it too, where this thread hangs or a peer dies in the extra generation.
    supervisor.on_failure = None if result is None else partial(save_effects_reason, paths)
    try:
        ranks: list[dict[str, Any]] = cluster.all_gather_object(engine.effects(plan.warmup_iters))
        no_effect = optimizations_without_effect(plan.optimizations, ranks)
    except Exception as error:
        reason = f"{type(error).__name__} on rank {cluster.rank.rank}: {' '.join(str(error).split())}"
        raise CheckError(
            f"the effects of the optimizations are not known ({reason}); the measured numbers are in "
            f"{paths.results}"
        ) from error
    with cluster.raise_on_all_ranks():
        if result is not None:
            if allow_no_effect:
                result["warnings"] += no_effect_warnings(no_effect)
            result |= found_effects(ranks, [] if allow_no_effect else no_effect)
            result |= {} if recount is None else recount(ranks)
            check_held(paths.lock)
            save_result(paths, result)
            supervisor.on_failure = None
            with suppress(OSError, SystemExit):
                late = [warning for warning in result["warnings"] if warning["code"] in _LATE_WARNINGS]
                print_effects(result, context.terminal.out, late)
    if no_effect and not allow_no_effect:
        raise NoEffectError(f"{no_effect[0]} (--allow_no_effect keeps such a result)")
    supervisor.complete()


def _meter_options(args: BenchmarkArgs) -> MeterOptions:
    return MeterOptions(
        energy_gpus=args.energy_gpus,
        sample_period_s=args.sample_period_s,
        idle_s=args.idle_s,
        require_energy=args.require_energy,
    )
