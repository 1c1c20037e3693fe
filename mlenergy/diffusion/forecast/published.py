"""The published runs that the constants are fitted to: the ML.ENERGY leaderboard, version 3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mlenergy.diffusion.config.args import read_args
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.forecast.cards import card_named
from mlenergy.diffusion.forecast.observed import Observed
from mlenergy.diffusion.forecast.work import work_of
from mlenergy.diffusion.models.architectures.reader import architecture_ids, find_architecture
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.results.published import SOURCE, PublishedRun, Task
from mlenergy.diffusion.results.published import published_runs as read_published

# Pipelines that are diffusers' own, of which xfuser 0.4.5 shares out the denoiser alone: every rank decodes.
_DECODED_BY_ALL = frozenset({"WanPipeline", "HunyuanVideoPipeline"})


@dataclass(frozen=True)
class Published:
    """The published run that is most like a plan.

    differs: in what it differs, in words; empty where it is the same set-up.
    """

    duration_s: float  # of an iteration
    energy_per_output_j: float
    differs: tuple[str, ...]
    source: str = SOURCE


def nearest_published(plan: Plan, gpu: str) -> Published | None:
    """The published run of the same model and GPU that is nearest in GPUs, degrees and batch, or None."""
    same = [
        one
        for one in read_published("text-to-video" if plan.makes_video else "text-to-image")
        if one.model_id == plan.spec.model_id and one.gpu == gpu
    ]
    if not same:
        return None
    parallel = plan.parallel
    wanted = (parallel.world_size, parallel.ulysses, parallel.ring, plan.batch_size)

    def distance(one: PublishedRun) -> tuple[int, int]:
        found = (one.gpus, one.ulysses, one.ring, one.batch_size)
        return abs(found[0] - wanted[0]), sum(abs(a - b) for a, b in zip(found, wanted, strict=True))

    one = min(same, key=distance)
    differs = []
    if (one.width_px, one.height_px) != (plan.width_px, plan.height_px):
        differs.append(f"{one.width_px}x{one.height_px} px")
    if plan.makes_video and one.num_frames != plan.num_frames:
        differs.append(f"{one.num_frames} frames")
    if one.steps != plan.steps:
        differs.append(f"{one.steps} steps")
    if one.gpus != parallel.world_size:
        differs.append("1 GPU" if one.gpus == 1 else f"{one.gpus} GPUs")
    if (one.ulysses, one.ring) != (parallel.ulysses, parallel.ring):
        differs.append(f"Ulysses {one.ulysses} x ring {one.ring}")
    if one.batch_size != plan.batch_size:
        differs.append(f"batch {one.batch_size}")
    return Published(one.duration_s, one.energy_per_output_j, tuple(differs))


def published_runs() -> Iterator[Observed]:
    """Runs of images, then of videos; some share their work in ways that this program does not offer."""
    yield from map(_observed, read_published("text-to-image"))
    known = [model for model in architecture_ids() if model in BY_ID]
    yield from (_observed(one) for one in read_published("text-to-video") if one.model_id in known)


def _observed(one: PublishedRun) -> Observed:
    words = {
        "model_id": one.model_id,
        "batch_size": str(one.batch_size),
        "inference_steps": str(one.steps),
        "height": str(one.height_px),
        "width": str(one.width_px),
        "dtype": one.dtype,
    }
    if one.num_frames is not None:
        words["num_frames"] = str(one.num_frames)
    card = card_named(one.gpu, one.dtype)
    plan = replace(
        _plan(one.task, words, card.name), parallel=Parallelism(ulysses=one.ulysses, ring=one.ring)
    )
    model = find_architecture(one.model_id, None)
    work = work_of(plan, model, costs_of(model))
    if model.pipeline_class in _DECODED_BY_ALL:
        work = replace(work, decoding_gpus=work.gpus)
    return Observed(
        model=one.model_id,
        card=card,
        work=work,
        duration_s=one.duration_s,
        energy_j=one.energy_per_output_j * one.batch_size,
    )


def _plan(task: Task, words: dict[str, str], device_name: str) -> Plan:
    argv = [f"workload:{task}"]
    for name, value in words.items():
        argv += [f"--workload.{name}", value]
    return make_plan(read_args(argv), BY_ID[words["model_id"]], 1, "cuda", device_name)
