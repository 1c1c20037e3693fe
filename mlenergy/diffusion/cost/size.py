"""Sizing of a plan: memory, arithmetic, communication, and how else it could be shared out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.config.checks import reasons
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.cost.communication import Communication, communication_of
from mlenergy.diffusion.cost.costs import ComponentCosts, check_predictable, costs_of
from mlenergy.diffusion.cost.flops import StageFlops, group_flops, scale_flops, whole_flops
from mlenergy.diffusion.cost.memory import (
    MemoryEstimate,
    decoded_tiles,
    latent_size,
    left_out_of_memory,
    memory_of,
    memory_of_scales,
)
from mlenergy.diffusion.cost.next_scale import image_costs
from mlenergy.diffusion.cost.shape import ASSUMED_TEXT_TOKENS, Shape, shape_of
from mlenergy.diffusion.models.architectures.reader import find_architecture
from mlenergy.diffusion.models.spec import ENGINES

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.architectures.reader import Architecture
    from mlenergy.diffusion.models.spec import EngineName

_TERA = 1e12
# Arithmetic that a GPU gets through while its link moves one byte: about 600 TFLOP/s against
# 300 GB/s, what an H100 with NVLink reaches. Only the order of the combinations depends on it.
FLOPS_PER_BYTE = 2000
MEMORY_NOTE = (
    "an estimate: weights exactly, activations of eager torch with fused attention; "
    "not the workspaces of the libraries, nor what the allocator keeps in reserve"
)


TEXT_NOTE = (
    f"the text of this model is as long as the prompt: {ASSUMED_TEXT_TOKENS} tokens are assumed, and a run "
    "counts those that it had"
)


@dataclass(frozen=True)
class ShareOut:
    """One way to use the processes, and what it means for the rank that has most to do."""

    engine: EngineName
    parallel: Parallelism
    approximate: bool  # PipeFusion's images are not exactly those of one rank
    tflops_per_rank: float  # of a whole iteration
    communication: Communication  # bytes sent by one rank in one step
    memory: MemoryEstimate

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "engine": self.engine,
            "parallel": asdict(self.parallel),
            "approximate": self.approximate,
            "tflops_per_rank": self.tflops_per_rank,
            "communication_per_step": self.communication.as_dict(),
            "memory": self.memory.as_dict(),
        }


@dataclass(frozen=True)
class Sizing:
    """Needs of a plan, and how else its work could be shared out."""

    parameters: dict[str, int]  # component -> count
    tflops: dict[str, float]  # stage -> of one iteration, all ranks; a step's stands as denoise_step
    own: ShareOut  # the plan as it is
    combinations: tuple[ShareOut, ...]  # of `processes`, best guess first
    processes: int
    gpu_memory_gib: float | None
    notes: tuple[str, ...] = (MEMORY_NOTE,)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "parameters": self.parameters,
            "tflops": self.tflops,
            **self.own.as_dict(),
            "processes": self.processes,
            "gpu_memory_gib": self.gpu_memory_gib,
            "combinations": [way.as_dict() for way in self.combinations],
            "notes": list(self.notes),
        }


def size_plan(plan: Plan, processes: int | None = None, gpu_memory_gib: float | None = None) -> Sizing:
    """Memory, FLOPs and communication of `plan`, and all valid combinations of degrees.

    Needs no GPU and imports no torch; an architecture that this package does not ship is counted
    by a child process the first time.

    Args:
        plan: a checked plan.
        processes: to find combinations for; None takes the plan's own number.
        gpu_memory_gib: memory of one GPU to compare with; None leaves `fits` unknown.

    Raises:
        UserError: the model's architecture is unknown or cannot be counted.
    """
    count = plan.parallel.world_size if processes is None else processes
    if plan.spec.next_scale is not None:
        return _size_of_scales(plan, count, gpu_memory_gib)
    check_predictable(plan)
    model = find_architecture(plan.weights_from, plan.revision)
    costs = costs_of(model)
    ways = [_share_out(each, model, costs, gpu_memory_gib) for each in valid_plans(plan, count)]
    return Sizing(
        parameters={name: part.parameters for name, part in costs.items()},
        tflops=_tflops(whole_flops(plan, model, costs)),
        own=_share_out(plan, model, costs, gpu_memory_gib),
        combinations=tuple(sorted(ways, key=lambda way: _rank(way, plan.steps))),
        processes=count,
        gpu_memory_gib=gpu_memory_gib,
        notes=_notes(plan, model),
    )


def _notes(plan: Plan, model: Architecture) -> tuple[str, ...]:
    """What the figures mean, and what of the plan they leave out."""
    notes = [MEMORY_NOTE] if plan.spec.family.pads_text else [MEMORY_NOTE, TEXT_NOTE]
    tiles = decoded_tiles(plan, model)
    if tiles is not None:
        size = latent_size(plan, model)
        what = "frame" if plan.makes_video else "image"
        notes.append(
            f"--vae_tiling decodes each {what} in {tiles.count(*size)} tiles that overlap: "
            f"{tiles.ratio(*size):.3g} times the cells and the decoder's work, which the TFLOPs have once"
        )
    left_out = left_out_of_memory(plan, model)
    if left_out:
        notes.append(f"with {', '.join(left_out)} it takes less: the estimate does not know by how much")
    return tuple(notes)


def _size_of_scales(plan: Plan, processes: int, gpu_memory_gib: float | None) -> Sizing:
    """Sizing of a model that predicts scales: its ranks send each other nothing."""
    ways = [_share_of_scales(each, gpu_memory_gib) for each in valid_plans(plan, processes)]
    return Sizing(
        parameters=dict(image_costs(plan).parameters),
        tflops=_tflops(scale_flops(plan)),
        own=_share_of_scales(plan, gpu_memory_gib),
        combinations=tuple(ways),
        processes=processes,
        gpu_memory_gib=gpu_memory_gib,
    )


def _share_of_scales(plan: Plan, gpu_memory_gib: float | None) -> ShareOut:
    return ShareOut(
        engine=plan.engine,
        parallel=plan.parallel,
        approximate=False,
        tflops_per_rank=scale_flops(plan).total / plan.parallel.data / _TERA,
        communication=Communication(0, 0, 0, 0, 0, 0),
        memory=memory_of_scales(plan, gpu_memory_gib),
    )


def valid_plans(plan: Plan, processes: int) -> Iterator[Plan]:
    """`plan` with every combination of degrees (and engine) whose product is `processes`."""
    warmup = plan.parallel.pipefusion_warmup_steps
    for data, cfg, pipefusion, ring, ulysses, tensor in factorings(processes, parts=6):
        if cfg > (2 if plan.runs_guidance_batch else 1) or plan.batch_size % data:
            continue
        parallel = Parallelism(data, cfg, pipefusion, ring, ulysses, tensor, pipefusion_warmup_steps=warmup)
        for engine in ENGINES:
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


def _share_out(
    plan: Plan, model: Architecture, costs: Mapping[str, ComponentCosts], gpu_memory_gib: float | None
) -> ShareOut:
    shape = shape_of(plan, model)
    return ShareOut(
        engine=plan.engine,
        parallel=plan.parallel,
        approximate=plan.parallel.pipefusion > 1 and plan.parallel.pipefusion_warmup_steps < plan.steps,
        tflops_per_rank=_rank_flops(plan, model, costs, shape) / _TERA,
        communication=communication_of(shape, plan.parallel, plan.dtype),
        memory=memory_of(plan, model, costs, shape, gpu_memory_gib),
    )


def _tflops(flops: StageFlops) -> dict[str, float]:
    stages = {
        "text_encode": flops.text_encode,
        "denoise": flops.denoise_step * flops.steps,
        "vae_decode": flops.vae_decode,
        "denoise_step": flops.denoise_step,
        "total": flops.total,
    }
    return {name: count / _TERA for name, count in stages.items()}


def _rank_flops(plan: Plan, model: Architecture, costs: Mapping[str, ComponentCosts], shape: Shape) -> float:
    """Every rank encodes its group's text; one of each group decodes; the steps are shared out."""
    text, step, decode = group_flops(model, costs, shape)
    parallel = plan.parallel
    step /= parallel.sequence * parallel.pipefusion * parallel.tensor
    group = parallel.world_size // parallel.data
    return text + plan.steps * step + decode / (group if parallel.parallel_vae else 1)


def _rank(way: ShareOut, steps: int) -> tuple[bool, bool, float]:
    """Sort key: plans that do not fit last, approximate ones before them; then by arithmetic and bytes."""
    moved = way.communication.total_bytes * steps * FLOPS_PER_BYTE / _TERA
    return way.memory.fits is False, way.approximate, way.tflops_per_rank + moved
