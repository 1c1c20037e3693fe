"""Checks of a plan before a model loads; each line says what would fit. No torch.

A check is a function of a plan that gives a reason, or None. request.py: what no engine can make;
parallelism.py: degrees, for both engines; xdit.py and diffusers.py: of one engine; autoregressive.py:
models that predict scales, and their options; optimizations.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlenergy.diffusion.config.checks import (
    autoregressive,
    diffusers,
    optimizations,
    parallelism,
    request,
    xdit,
)
from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.spec import EngineName

    Check = Callable[[Plan], str | None]

_OF_ENGINE: dict[EngineName, tuple[Check, ...]] = {
    "xdit": xdit.CHECKS,
    "diffusers": diffusers.CHECKS,
    "autoregressive": autoregressive.CHECKS,
}


def check_plan(plan: Plan) -> None:
    """Raise UserError with the first thing that cannot work."""
    found = reasons(plan)
    if found:
        raise UserError(found[0])


def reasons(plan: Plan) -> list[str]:
    """Every reason why a plan cannot run, of the first group of checks that has one; none where it can.

    Later groups rely on what the earlier ones have found to be in order.
    """
    groups: tuple[tuple[Check, ...], ...] = (
        autoregressive.OF_THE_MODEL,
        request.CHECKS,
        parallelism.OFFERED,
        (*parallelism.CHECKS, *_OF_ENGINE[plan.engine]),
        optimizations.CHECKS,
    )
    for checks in groups:
        found = [reason for check in checks if (reason := check(plan)) is not None]
        if found:
            return found
    return []
