"""One run on one rank: prompts, load, measure, save, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engine import Engine
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.engines.denoiser_calls import denoiser_calls
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect
from mlenergy.diffusion.environment.record import environment_record, node_record
from mlenergy.diffusion.errors import Interrupted, UserError
from mlenergy.diffusion.measure.energy.meter import Meter, MeterOptions, make_meter
from mlenergy.diffusion.measure.energy.power_limit import power_limit
from mlenergy.diffusion.measure.memory import MemoryWatch
from mlenergy.diffusion.measure.outputs import Pixels
from mlenergy.diffusion.measure.samples import Measurement
from mlenergy.diffusion.measure.session import Instruments, Schedule, measure
from mlenergy.diffusion.measure.stages import StageProbe
from mlenergy.diffusion.measure.statistics import StopRule
from mlenergy.diffusion.prompts.sampling import PromptSet, batches_of, shared_prompts
from mlenergy.diffusion.quality.reference import Reference, find_reference, similarity
from mlenergy.diffusion.report.progress import RunProgress
from mlenergy.diffusion.report.run_view import print_summary
from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.efficiency import efficiency_section
from mlenergy.diffusion.results.lock import check_held
from mlenergy.diffusion.results.media import image_names
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.save import save_run
from mlenergy.diffusion.supervision.folder import ResultFolder
from mlenergy.diffusion.supervision.supervise import Supervisor, supervised
from mlenergy.diffusion.supervision.terminal import Terminal


@dataclass(frozen=True)
class RunContext:
    """What every step of a run needs."""

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
        prompts = shared_prompts(plan, cluster)
        reference = _find_reference(args, context, prompts)
        meter = make_meter(cluster, cluster.device, _meter_options(args))
        until_saved.enter_context(power_limit(cluster, meter, plan.power_limit_w))
        progress.say(f"loading {plan.spec.model_id}")
        with cluster.raise_on_all_ranks():
            engine = load_engine(plan, cluster)
        supervisor.enter("measuring")
        measured = _measure(context, engine, meter, prompts, progress)
        supervisor.enter("saving")
        until_saved.close()
        progress.close()
        nodes = cluster.gather_object(node_record())
        loads = cluster.gather_object(asdict(engine.report))
        signum = cluster.broadcast_object(supervisor.interrupted_by)
        measurement, pixels = measured
        record: RunRecord | None = None
        if measurement is not None:
            environment = environment_record(sys.argv, facts=engine.report.facts, nodes=nodes)
            record = RunRecord(plan, measurement, prompts, environment, loads)
        if signum is not None:
            if record is not None:
                check_held(context.paths.lock)
                write_json(context.paths.interrupted, build_result(record, [None] * record.completed))
            where = context.paths.interrupted
            raise Interrupted(signum, f"what was measured until then is in {where}")
        effects = _effects(context, engine, args.allow_no_effect)
        if record is not None:
            _save_and_print(context, record, pixels, effects, reference)
        engine.close()


def _find_reference(args: BenchmarkArgs, context: RunContext, prompts: PromptSet) -> Reference | None:
    """Look at the reference on rank 0 alone, and before anything that takes long.

    Raises:
        UserError: on every rank: it does not fit this run.
    """
    plan, reference = context.plan, None
    with context.cluster.raise_on_all_ranks():
        if args.reference is not None and context.cluster.rank.is_main:
            certain = prompts.requests[: plan.benchmark_iters * plan.batch_size]
            reference = find_reference(args.reference, plan, certain)
    return reference


def _measure(
    context: RunContext, engine: Engine, meter: Meter, prompts: PromptSet, progress: RunProgress
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
    )


def _effects(context: RunContext, engine: Engine, allow_no_effect: bool) -> list[dict[str, Any]]:
    """Every rank's record of what the optimizations did, on every rank.

    Raises:
        UserError: on every rank, where one did nothing.
    """
    plan = context.plan
    ranks: list[dict[str, Any]] = context.cluster.all_gather_object(engine.effects(plan.warmup_iters))
    idle = optimizations_without_effect(plan.optimizations, ranks)
    if idle and not allow_no_effect:
        raise UserError(f"{idle[0]} (--allow_no_effect keeps such a result)")
    return ranks


def _save_and_print(
    context: RunContext,
    record: RunRecord,
    pixels: Sequence[Pixels],
    effects: list[dict[str, Any]],
    reference: Reference | None,
) -> None:
    check_held(context.paths.lock)
    likeness: dict[str, Any] = {}
    if reference is not None:  # before saving: the reference may be the result that is replaced
        likeness = {"similarity": similarity(reference, np.concatenate(list(pixels)))}
    tf32 = bool(torch.backends.cuda.matmul.allow_tf32)
    work = efficiency_section(context.plan, record.measurement.iterations, tf32)
    files: Sequence[str | None] = [None] * record.completed
    if pixels:
        files = image_names(context.paths, record.measured_requests)
    result = build_result(replace(record, efficiency=work), files)
    result |= {"effects": effects} | likeness
    save_run(context.paths, record, pixels, result)
    print_summary(result, context.paths, context.terminal.out)
    context.supervisor.complete()


def _meter_options(args: BenchmarkArgs) -> MeterOptions:
    return MeterOptions(
        energy_gpus=args.energy_gpus,
        sample_period_s=args.sample_period_s,
        idle_s=args.idle_s,
        require_energy=args.require_energy,
    )
