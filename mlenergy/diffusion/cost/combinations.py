"""Every way to share a plan's work among N processes that the plan's own checks let through."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from mlenergy.diffusion.config.checks import reasons
from mlenergy.diffusion.config.parallelism import Parallelism

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.spec import EngineName

# Engines in the order in which they are preferred where both can do it.
_ENGINES: tuple[EngineName, ...] = ("xdit", "diffusers")


def valid_plans(plan: Plan, processes: int) -> Iterator[Plan]:
    """`plan` with every combination of degrees (and engine) whose product is `processes`."""
    warmup = plan.parallel.pipefusion_warmup_steps
    for data, cfg, pipefusion, ring, ulysses, tensor in factorings(processes, parts=6):
        if cfg > (2 if plan.runs_guidance_batch else 1) or plan.batch_size % data:
            continue
        parallel = Parallelism(data, cfg, pipefusion, ring, ulysses, tensor, pipefusion_warmup_steps=warmup)
        for engine in _ENGINES:
            if engine in plan.spec.family.modes:
                candidate = replace(plan, parallel=parallel, engine=engine)
                if not reasons(candidate):
                    yield candidate
                    break


def factorings(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ordered products of `parts` factors that make `number`."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    for head in itertools.product(divisors, repeat=parts - 1):
        product = 1
        for degree in head:
            product *= degree
        if number % product == 0:
            yield (*head, number // product)
