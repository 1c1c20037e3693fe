"""A training's options, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import plan_of
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.dataset.folder import ImageFolder, read_images
from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.families import FAMILIES
from mlenergy.diffusion.training.options import FinetuneArgs, Precision

_DTYPES: dict[Precision, Any] = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
_PLACES = ("out", "dataset", "device", "energy_gpus", "require_energy", "sample_period_s", "idle_s", "debug")
_HOW = ("checkpoint_every", "log_every", "mixed_precision", "height", "width")  # no part, or resolved


def plan_training(args: FinetuneArgs) -> tuple[Plan, ImageFolder]:
    """The plan of loading the model in the type of its frozen weights, and the images.

    Raises:
        UserError: the model or its sizes cannot be trained, or the images cannot be had.
    """
    images = read_images(args.dataset)
    workload = TextToImage(
        model_id=args.model_id,
        height=args.height,
        width=args.width,
        revision=args.revision,
        dataset="bundled",
    )
    plan = plan_of(BenchmarkArgs(workload=workload, device=args.device, engine="diffusers"), 1)
    if not plan.spec.family.trains_lora:
        known = ", ".join(sorted(f.pipeline_class for f in FAMILIES.values() if f.trains_lora))
        raise UserError(
            f"{args.model_id} is a {plan.spec.family.pipeline_class}, for which there is no training; "
            f"it trains {known}"
        )
    return replace(plan, dtype=_DTYPES[precision_of(args, plan)]), images


def precision_of(args: FinetuneArgs, plan: Plan) -> Precision:
    """The precision that was asked for, or the device's default."""
    if args.mixed_precision is not None:
        return args.mixed_precision
    return "bf16" if plan.device == "cuda" else "no"


def request_of(args: FinetuneArgs, plan: Plan, images: ImageFolder, rank: Rank) -> dict[str, Any]:
    """Everything that decides the weights that come out."""
    chosen = {
        field.name: _plain(getattr(args, field.name))
        for field in fields(args)
        if field.name not in (*_PLACES, *_HOW)
    }
    provenance = images.provenance()
    return {
        **chosen,
        "alpha": args.rank if args.alpha is None else args.alpha,
        "mixed_precision": precision_of(args, plan),
        "height_px": plan.height_px,
        "width_px": plan.width_px,
        "processes": rank.world_size,
        "metadata_sha256": provenance["metadata_sha256"],
        "images_sha256": provenance["images_sha256"],
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
