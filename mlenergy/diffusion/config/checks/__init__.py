"""Everything that can be refused before a model loads; each line says what would fit. No torch.

request.py: what no engine can make; parallelism.py: degrees, for both engines; xdit.py and diffusers.py:
of one engine; optimizations.py and stored_weights.py: optimizations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mlenergy.diffusion.config.checks import diffusers, parallelism, request, xdit
from mlenergy.diffusion.config.checks.optimizations import check_optimizations
from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.spec import EngineName

    Check = Callable[[Plan], str | None]

_OF_ENGINE: dict[EngineName, tuple[Check, ...]] = {"xdit": xdit.CHECKS, "diffusers": diffusers.CHECKS}


def check_plan(plan: Plan) -> None:
    """Raise UserError with the first thing that cannot work."""
    line = next(_all(plan), None)
    if line is not None:
        raise UserError(line)


def passes(plan: Plan) -> bool:
    """Whether nothing of it is refused."""
    return next(_all(plan), None) is None


def refusals(plan: Plan) -> list[str]:
    """Every reason why the plan's engine cannot run its degrees; where it lacks a mode, that alone."""
    return list(_of_degrees(plan))


def _all(plan: Plan) -> Iterator[str]:
    yield from _found(request.CHECKS, plan)
    yield from _of_degrees(plan)
    yield from _found((check_optimizations,), plan)


def _of_degrees(plan: Plan) -> Iterator[str]:
    lacking = parallelism.lacking_mode(plan)
    if lacking is not None:
        yield lacking
    else:
        yield from _found((*parallelism.CHECKS, *_OF_ENGINE[plan.engine]), plan)


def _found(checks: tuple[Check, ...], plan: Plan) -> Iterator[str]:
    """In order, and only as far as somebody asks: a check may rely on those before it."""
    return (line for check in checks if (line := check(plan)) is not None)
