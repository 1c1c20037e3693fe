"""Work that ran, held against the work that was planned. Pure; no torch.

The hooks of the stage times see every call of the denoiser on every rank. A window whose calls, or the
latents given to them, are not those of the plan measured something else than its result says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.measure.samples import DenoiserWork, Iteration

TOLERANCE = 0.01  # relative difference of the denoiser's work from the plan's


@dataclass(frozen=True)
class PlannedWork:
    """The denoiser's work in one window on one rank; None where it is not known.

    calls: by the scheduler's own list of timesteps for the plan's steps, or PipeFusion's patches.
    elements: of the latents in one call, where one rank does all of it.
    scheduler: class that made the list.
    """

    calls: int | None = None
    elements: int | None = None
    scheduler: str | None = None


def planned_work(plan: Plan, calls: int | None, scheduler: str | None) -> PlannedWork:
    """The work that every rank is to do.

    Args:
        plan: what is run.
        calls: of the denoiser in one generation, as the engine expects them; None: not known.
        scheduler: class name of the scheduler.
    """
    alone = plan.parallel.world_size == 1 and not plan.use_resolution_binning
    return PlannedWork(calls, _elements(plan) if alone else None, scheduler)


def executed_section(plan: Plan, planned: PlannedWork, iterations: Sequence[Iteration]) -> dict[str, Any]:
    """Calls that were expected and seen, and an explanation where they are not one a step."""
    seen = [work.calls for one in iterations for work in one.denoiser if work is not None]
    explanation = None
    each = plan.denoiser_calls_each_step
    if planned.calls is not None and planned.calls != plan.steps:
        if plan.parallel.pipefusion > 1:
            explanation = "PipeFusion calls the denoiser once a patch after its synchronous steps"
        elif planned.calls == each * plan.steps:
            explanation = "the pipeline calls the denoiser with the prompt and without it in each step"
        else:
            explanation = f"{planned.scheduler} makes {planned.calls} calls in {plan.steps} steps"
    complete = seen and all(None not in one.denoiser and one.denoiser for one in iterations)
    return {
        "steps_planned": plan.steps,
        "denoiser_calls_planned": planned.calls,
        "denoiser_calls_least": min(seen) if complete else None,
        "denoiser_calls_most": max(seen) if complete else None,
        "explanation": explanation,
        "reason": None if complete else "no call of the denoiser was seen on every rank",
    }


def work_that_differs(planned: PlannedWork, iterations: Sequence[Iteration]) -> list[str]:
    """A line for the first window in which the denoiser's work differs from the plan's by more than 1 %."""
    lines = (
        line
        for one in iterations
        for rank, work in enumerate(one.denoiser)
        for line in _differences(planned, one.index, rank, work)
    )
    first = next(lines, None)
    return [] if first is None else [first]


def calls_that_ran(planned: PlannedWork, iterations: Sequence[Iteration]) -> float | None:
    """Calls of the denoiser in the mean window, by the first rank; None where they were not seen."""
    seen = [one.denoiser[0].calls if one.denoiser and one.denoiser[0] else None for one in iterations]
    known = [calls for calls in seen if calls is not None]
    if planned.calls is None or not known or len(known) < len(seen):
        return None
    return sum(known) / len(known)


def text_that_ran(plan: Plan, iterations: Sequence[Iteration]) -> float | None:
    """Text tokens of the mean row that the denoisers of all ranks were given; None where the plan knows them.

    Raises:
        UserError: no text was seen, of a model whose text is as long as the prompt.
    """
    if plan.spec.family.pads_text:
        return None
    works = [work for one in iterations for work in one.denoiser if work is not None]
    rows, tokens = sum(work.rows for work in works), sum(work.text_tokens or 0 for work in works)
    if not rows or not tokens:
        raise UserError("the text is as long as the prompt, and no call of the denoiser with one was seen")
    return tokens / rows


def _differences(planned: PlannedWork, window: int, rank: int, work: DenoiserWork | None) -> Iterator[str]:
    if work is None or planned.calls is None:
        return
    where = f"window {window} on rank {rank}"
    if abs(work.calls - planned.calls) > TOLERANCE * planned.calls:
        yield (
            f"the denoiser ran {work.calls} times in {where}, and the plan's steps take {planned.calls}: "
            "what was measured is not what was asked for; report this with driver_log.txt"
        )
    elif planned.elements is not None:
        expected = planned.calls * planned.elements
        if abs(work.elements - expected) > TOLERANCE * expected:
            yield (
                f"the denoiser was given {work.elements} latent values in {where}, the plan has {expected}: "
                "another size or batch was measured than asked for; report this with driver_log.txt"
            )


def _elements(plan: Plan) -> int | None:
    """Latent values of one call on one rank; None for a model whose channels no file of this machine says.

    Of next-scale prediction the features of the tokens in the mean scale.
    """
    from mlenergy.diffusion.models.architectures.reader import find_architecture
    from mlenergy.diffusion.models.facts import latent_channels

    if plan.spec.family.is_generic:
        return None
    model_of_scales, rows = plan.spec.next_scale, plan.batch_size * (2 if plan.runs_guidance_batch else 1)
    if model_of_scales is not None:
        return round(rows * plan.tokens * int(model_of_scales.config.width) / plan.steps)
    try:
        model = find_architecture(plan.weights_from, plan.revision)
    except UserError:
        return None
    channels, cell = latent_channels(model.components["vae"].config), plan.spec.latent_factor
    if plan.spec.family.conditioned_latents:
        channels = model.denoiser.config.get("in_channels")
    if channels is None:
        return None
    rows //= plan.denoiser_calls_each_step
    area = (plan.height_px // cell) * (plan.width_px // cell)
    return int(rows * channels * plan.denoised_frames * area)
