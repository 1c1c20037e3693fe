"""The engines: each turns a plan into a loaded pipeline that generates images.

Nothing here imports torch, xfuser or diffusers before an engine is really loaded.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.config.checks import check_plan
from mlenergy.diffusion.environment.imports import large_imports
from mlenergy.diffusion.weights.reading import read_shards_in_parallel

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.distributed.cluster import Cluster
    from mlenergy.diffusion.engine import Engine


def import_engine(plan: Plan) -> None:
    """Import what `load_engine` takes: the engine, its libraries, of diffusers' pipelines the family's own.

    Nothing is put on a device, so that idle power can be sampled meanwhile.

    Raises:
        UserError: the engine's package is missing or of another version.
    """
    check_plan(plan)
    read_shards_in_parallel()
    with large_imports():
        _engine_class(plan)
        if plan.engine != "autoregressive":
            import diffusers

            # By name, so that its module is imported now. A class from the model's own files comes later.
            getattr(diffusers, plan.spec.family.pipeline_class, None)
        if plan.engine == "xdit":
            from mlenergy.diffusion.engines.xdit.setup import prepare_xfuser

            prepare_xfuser(plan)
    # Once, before anything is measured: else the first window could pay for what was left out above.
    gc.collect()


def load_engine(plan: Plan, cluster: Cluster) -> Engine:
    """Load the plan's pipeline on this rank; every rank has to call it.

    Raises:
        UserError: a package, a weight file or a device is missing, or the plan's engine cannot run its
            degrees, with what to do.
    """
    check_plan(plan)
    engine: Engine = _engine_class(plan).load(plan, cluster)
    return engine


def _engine_class(plan: Plan) -> Any:
    if plan.engine == "xdit" and plan.spec.family.exchanged_transformer is not None:
        from mlenergy.diffusion.engines.xdit.exchanged import ExchangedEngine

        return ExchangedEngine
    if plan.engine == "xdit":
        from mlenergy.diffusion.engines.xdit.engine import XditEngine

        return XditEngine
    if plan.engine == "autoregressive":
        from mlenergy.diffusion.engines.autoregressive.engine import AutoregressiveEngine

        return AutoregressiveEngine
    from mlenergy.diffusion.engines.diffusers.engine import DiffusersEngine

    return DiffusersEngine
