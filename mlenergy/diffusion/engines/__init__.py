"""The engines: each turns a plan into a loaded pipeline that generates images.

Nothing here imports torch, xfuser or diffusers before an engine is really loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlenergy.diffusion.config.checks import check_plan

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.distributed.cluster import Cluster
    from mlenergy.diffusion.engine import Engine


def load_engine(plan: Plan, cluster: Cluster) -> Engine:
    """Load the plan's pipeline on this rank; every rank has to call it.

    Raises:
        UserError: a package, a weight file or a device is missing, or the plan's engine cannot run its
            degrees, with what to do.
    """
    check_plan(plan)
    if plan.engine == "xdit" and plan.spec.family.exchanged_transformer is not None:
        from mlenergy.diffusion.engines.xdit.exchanged import ExchangedEngine

        return ExchangedEngine.load(plan, cluster)
    if plan.engine == "xdit":
        from mlenergy.diffusion.engines.xdit.engine import XditEngine

        return XditEngine.load(plan, cluster)
    if plan.engine == "autoregressive":
        from mlenergy.diffusion.engines.autoregressive.engine import AutoregressiveEngine

        return AutoregressiveEngine.load(plan, cluster)
    from mlenergy.diffusion.engines.diffusers.engine import DiffusersEngine

    return DiffusersEngine.load(plan, cluster)
