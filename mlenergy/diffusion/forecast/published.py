"""The published runs that the constants are fitted to: the ML.ENERGY leaderboard, version 3."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from mlenergy.diffusion.config.args import read_args
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.forecast.cards import card_named
from mlenergy.diffusion.forecast.observed import Observed
from mlenergy.diffusion.forecast.work import work_of
from mlenergy.diffusion.models.architectures.reader import find_architecture
from mlenergy.diffusion.models.listed import BY_ID

SOURCE = "ML.ENERGY leaderboard v3 (xDiT 0.4.5, eager, bfloat16)"


@dataclass(frozen=True)
class Published:
    """The published run that is most like a plan.

    differs: in what it differs, in words; empty where it is the same set-up.
    """

    duration_s: float  # of an iteration
    energy_per_image_j: float
    differs: tuple[str, ...]
    source: str = SOURCE


def nearest_published(plan: Plan, gpu: str) -> Published | None:
    """The published run of the same model and GPU that is nearest in GPUs, degrees and batch, or None."""
    same = [line for line in _lines() if line["model_id"] == plan.spec.model_id and line["gpu_model"] == gpu]
    if not same:
        return None
    parallel = plan.parallel
    wanted = (parallel.world_size, parallel.ulysses, parallel.ring, plan.batch_size)

    def distance(line: dict[str, str]) -> tuple[int, int]:
        found = _degrees_of(line)
        return abs(found[0] - wanted[0]), sum(abs(a - b) for a, b in zip(found, wanted, strict=True))

    line = min(same, key=distance)
    gpus, ulysses, ring, batch = _degrees_of(line)
    differs = []
    size = f"{line['image_width']}x{line['image_height']}"
    if size != f"{plan.width_px}x{plan.height_px}":
        differs.append(f"{size} px")
    if int(line["inference_steps"]) != plan.steps:
        differs.append(f"{line['inference_steps']} steps")
    if gpus != parallel.world_size:
        differs.append("1 GPU" if gpus == 1 else f"{gpus} GPUs")
    if (ulysses, ring) != (parallel.ulysses, parallel.ring):
        differs.append(f"Ulysses {ulysses} x ring {ring}")
    if batch != plan.batch_size:
        differs.append(f"batch {batch}")
    return Published(float(line["batch_latency_s"]), float(line["energy_per_image_joules"]), tuple(differs))


def _degrees_of(line: dict[str, str]) -> tuple[int, int, int, int]:
    names = ("num_gpus", "ulysses_degree", "ring_degree", "batch_size")
    gpus, ulysses, ring, batch = (int(line[name]) for name in names)
    return gpus, ulysses, ring, batch


@cache
def _lines() -> tuple[dict[str, str], ...]:
    text = (resources.files("mlenergy.diffusion") / "data" / "published-text-to-image.csv").read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def published_runs() -> Iterator[Observed]:
    """Runs of text-to-image models; some share their work in ways that this program does not offer."""
    for line in _lines():
        batch, model_id = int(line["batch_size"]), line["model_id"]
        words = {
            "model_id": model_id,
            "batch_size": str(batch),
            "inference_steps": line["inference_steps"],
            "height": line["image_height"],
            "width": line["image_width"],
            "dtype": line["weight_precision"],
        }
        card = card_named(line["gpu_model"], line["weight_precision"])
        degrees = Parallelism(ulysses=int(line["ulysses_degree"]), ring=int(line["ring_degree"]))
        plan = replace(_plan(words, card.name), parallel=degrees)
        model = find_architecture(model_id, None)
        yield Observed(
            model=model_id,
            card=card,
            work=work_of(plan, model, costs_of(model)),
            duration_s=float(line["batch_latency_s"]),
            energy_j=float(line["energy_per_image_joules"]) * batch,
        )


def _plan(words: dict[str, str], device_name: str) -> Plan:
    argv = ["workload:text-to-image"]
    for name, value in words.items():
        argv += [f"--workload.{name}", value]
    return make_plan(read_args(argv), BY_ID[words["model_id"]], 1, "cuda", device_name)
