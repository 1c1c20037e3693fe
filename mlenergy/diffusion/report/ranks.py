"""Role of every rank, in the layout by which both engines form their groups."""

from __future__ import annotations

from dataclasses import dataclass

from mlenergy.diffusion.config.parallelism import AXES
from mlenergy.diffusion.config.plan import Plan


@dataclass(frozen=True)
class RankRole:
    """One rank's place among the modes, each from 0, and what that means."""

    rank: int
    tensor: int
    ulysses: int
    ring: int
    pipefusion: int
    cfg: int
    data: int
    first_image: int  # of the batch, from 0
    last_image: int  # the one after it
    returns_images: bool
    role: str


def rank_roles(plan: Plan) -> list[RankRole]:
    """The role of every rank of a plan, in rank order."""
    return [_role(plan, rank) for rank in range(plan.parallel.world_size)]


def _role(plan: Plan, rank: int) -> RankRole:
    place: dict[str, int] = {}
    rest = rank
    for axis in reversed(AXES):
        rest, place[axis] = divmod(rest, getattr(plan.parallel, axis))
    rows = plan.batch_size // plan.parallel.data
    first, last = place["data"] * rows, (place["data"] + 1) * rows
    returns = _returns_images(plan, place)
    words = [
        *_words(plan, place, first, last),
        *([f"returns the {plan.spec.family.output}s"] if returns else []),
    ]
    return RankRole(
        rank, **place, first_image=first, last_image=last, returns_images=returns, role=", ".join(words)
    )


def _returns_images(plan: Plan, place: dict[str, int]) -> bool:
    """xDiT's images come from the last rank of a data-parallel group, those of diffusers from the first."""
    inside = [axis for axis in AXES if axis != "data"]
    if plan.engine == "xdit":
        return all(place[axis] == getattr(plan.parallel, axis) - 1 for axis in inside)
    return all(place[axis] == 0 for axis in inside)


def _words(plan: Plan, place: dict[str, int], first: int, last: int) -> list[str]:
    parallel = plan.parallel
    words = []
    if parallel.data > 1:
        made = plan.spec.family.output
        words.append(f"{made} {first}" if last - first == 1 else f"{made}s {first}-{last - 1}")
    if parallel.cfg > 1:
        words.append("with the prompt" if place["cfg"] else "without the prompt")
    if parallel.pipefusion > 1:
        words.append(f"pipeline stage {place['pipefusion'] + 1} of {parallel.pipefusion}")
    if parallel.sequence > 1:
        part = place["ring"] * parallel.ulysses + place["ulysses"] + 1
        words.append(f"sequence part {part} of {parallel.sequence}")
    if parallel.tensor > 1:
        words.append(f"matrix part {place['tensor'] + 1} of {parallel.tensor}")
    return words or [f"the whole model and every {plan.spec.family.output}"]
