"""What becomes of a measurement: files in the result folder, and a summary on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect
from mlenergy.diffusion.errors import Interrupted, UserError
from mlenergy.diffusion.results.files import save_requests, save_result, save_timeline, write_json
from mlenergy.diffusion.results.lock import check_held
from mlenergy.diffusion.results.swap import replaced_result

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.distributed.cluster import Cluster
    from mlenergy.diffusion.engine import Engine
    from mlenergy.diffusion.measure.outputs import Pixels
    from mlenergy.diffusion.measure.samples import Measurement
    from mlenergy.diffusion.prompts.sampling import PromptSet
    from mlenergy.diffusion.quality.reference import Reference
    from mlenergy.diffusion.results.paths import RunPaths
    from mlenergy.diffusion.supervision.supervise import Supervisor
    from mlenergy.diffusion.supervision.terminal import Terminal

    Measured = tuple[Measurement | None, list[Pixels]]


@dataclass(frozen=True)
class Keeping:
    """What has to hold for a result to be kept, and what it is compared with."""

    allow_no_effect: bool = False  # keep it although a optimization did nothing
    reference: Reference | None = None  # on rank 0


def save_and_show(
    plan: Plan,
    cluster: Cluster,
    paths: RunPaths,
    terminal: Terminal,
    prompts: PromptSet,
    measured: Measured,
    engine: Engine,
    supervisor: Supervisor,
    keeping: Keeping,
) -> None:
    """Gather what the machines are, then write and print on global rank 0. Every rank calls it.

    Raises:
        UserError: a file cannot be written, or a optimization had no effect.
        Interrupted: a signal ended the measuring; what there is has been written as such.
    """
    from mlenergy.diffusion.environment.record import environment_record, node_record
    from mlenergy.diffusion.report.run_view import print_summary
    from mlenergy.diffusion.results.build import build_result
    from mlenergy.diffusion.results.efficiency import efficiency_section

    nodes = cluster.gather_object(node_record())
    loads = cluster.gather_object(asdict(engine.report))
    signum = cluster.broadcast_object(supervisor.interrupted_by)
    measurement, pixels = measured
    effects = None if signum is not None else _effects(plan, cluster, engine, keeping)
    if measurement is not None:
        check_held(paths.lock)
        environment = environment_record(sys.argv, facts=engine.report.facts, nodes=nodes)
        if signum is not None:
            count = sum(iteration.images for iteration in measurement.iterations)
            result = build_result(plan, measurement, prompts, environment, [None] * count, load=loads)
            write_json(paths.interrupted, result)
        else:
            likeness = _similarity(keeping, pixels)  # first: the reference may be the result that goes
            work = efficiency_section(plan, measurement.iterations, effects, _tf32())
            with replaced_result(paths) as new:
                files = _write_inputs_and_images(new, prompts, measurement, pixels)
                result = build_result(
                    plan, measurement, prompts, environment, files, load=loads, efficiency=work
                )
                result |= {"effects": effects} | likeness
                _write_result(new, measurement, result)
            print_summary(result, paths, terminal.out)
            supervisor.complete()
    if signum is not None:
        raise Interrupted(signum, f"what was measured until then is in {paths.interrupted}")


def _effects(plan: Plan, cluster: Cluster, engine: Engine, keeping: Keeping) -> list[dict[str, Any]]:
    """Every rank's record of what the optimizations did, on every rank.

    Raises:
        UserError: on every rank, where one did nothing.
    """
    ranks: list[dict[str, Any]] = cluster.all_gather_object(engine.effects(plan.warmup_iters))
    idle = optimizations_without_effect(plan.optimizations, ranks)
    if idle and not keeping.allow_no_effect:
        raise UserError(f"{idle[0]} (--allow_no_effect keeps such a result)")
    return ranks


def _tf32() -> bool:
    """Whether float32 products run on tensor cores, which have a peak of their own."""
    import torch

    return bool(torch.backends.cuda.matmul.allow_tf32)


def _similarity(keeping: Keeping, pixels: Sequence[Pixels]) -> dict[str, Any]:
    if keeping.reference is None:
        return {}
    import numpy as np

    from mlenergy.diffusion.quality.reference import similarity

    return {"similarity": similarity(keeping.reference, np.concatenate(list(pixels)))}


def _write_inputs_and_images(
    paths: RunPaths, prompts: PromptSet, measurement: Measurement, pixels: Sequence[Pixels]
) -> list[str | None]:
    import numpy as np

    from mlenergy.diffusion.results.media import save_images

    save_requests(paths, prompts)
    count = sum(iteration.images for iteration in measurement.iterations)
    if not pixels:
        return [None] * count
    return list(save_images(paths, prompts.requests[:count], np.concatenate(list(pixels))))


def _write_result(paths: RunPaths, measurement: Measurement, result: dict[str, Any]) -> None:
    if measurement.timeline is not None:
        save_timeline(paths, measurement.timeline)
    save_result(paths, result)
