"""Engines: each turns a plan into something that generates images.

Nothing here imports torch, xfuser or diffusers before an engine is really loaded.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from mlenergy.diffusion.models.spec import EngineName

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.distributed.cluster import Cluster
    from mlenergy.diffusion.engine import Engine

_PACKAGES: dict[EngineName, tuple[str, ...]] = {
    "xdit": ("xfuser", "yunchang", "distvae", "triton", "diffusers"),
    "diffusers": ("diffusers",),
}


def engine_available(name: EngineName) -> bool:
    """Whether the packages that an engine needs are installed; imports none of them."""
    return all(importlib.util.find_spec(package) is not None for package in _PACKAGES[name])


def load_engine(plan: Plan, cluster: Cluster) -> Engine:
    """Load the plan's pipeline on this rank; every rank has to call it.

    Raises:
        UserError: a package, a weight file or a device is missing, with what to do.
    """
    if plan.engine == "xdit":
        from mlenergy.diffusion.engines.xdit.engine import XditEngine

        return XditEngine.load(plan, cluster)
    from mlenergy.diffusion.engines.diffusers.engine import DiffusersEngine

    return DiffusersEngine.load(plan, cluster)
