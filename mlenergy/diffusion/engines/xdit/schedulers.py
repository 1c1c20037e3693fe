"""Which schedulers may step a part of an image: a wrong one gives a wrong image without an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import architecture, has_architecture

# xfuser wraps these for images in parts, and the parity tests cover FlowMatchEuler (FLUX, SD3),
# DPM-Solver (PixArt), DDPM (HunyuanDiT); DDIM steps every element by itself, as they do.
_STEPS_PARTS: dict[str, dict[str, tuple[object, ...]]] = {
    "FlowMatchEulerDiscreteScheduler": {"stochastic_sampling": (False,)},
    "DPMSolverMultistepScheduler": {
        "algorithm_type": ("dpmsolver++", "dpmsolver"),
        "thresholding": (False,),
        "solver_order": (1, 2),
    },
    "DDIMScheduler": {"thresholding": (False,)},
    "DDPMScheduler": {"thresholding": (False,)},
}


def check_scheduler(plan: Plan, folder: str) -> None:
    """Refuse a scheduler that looks at, or draws noise for, more of the image than a rank holds.

    folder: the pipeline's folder, or the id of an architecture under random weights; only its
        scheduler's configuration is read.

    Raises:
        UserError: the image is spread over ranks, and this scheduler cannot step a part of it.
    """
    if plan.parallel.sequence * plan.parallel.pipefusion == 1:
        return
    name, config = _scheduler_of(plan, folder)
    allowed = _STEPS_PARTS.get(name)
    if allowed is None:
        raise UserError(
            f"{plan.spec.model_id} has the scheduler {name}, which xfuser cannot step on parts of an image; "
            "use --use_cfg_parallel or --data_parallel_degree, or one process"
        )
    for option, values in allowed.items():
        value = config.get(option, values[0])
        if value not in values:
            raise UserError(
                f"{plan.spec.model_id}'s scheduler has {option}={value}, with which parts of an image cannot "
                "be stepped alone; use --use_cfg_parallel or --data_parallel_degree, or one process"
            )


def _scheduler_of(plan: Plan, folder: str) -> tuple[str, Mapping[str, Any]]:
    """Class and configuration."""
    if plan.weights == "random" and has_architecture(folder):
        part = architecture(folder).components["scheduler"]
        return part.class_name, part.config
    config = json.loads((Path(folder) / "scheduler" / "scheduler_config.json").read_text())
    return str(config.get("_class_name")), config
