"""Schedulers that may step a part of an image: a wrong one gives a wrong image without an error."""

from __future__ import annotations

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import architecture
from mlenergy.diffusion.models.hub import ModelFolder

# xfuser wraps these for images in parts, and the parity tests cover FlowMatchEuler (FLUX, SD3),
# DPM-Solver (PixArt), DDPM (HunyuanDiT), CogVideoX's DDIM; DDIM steps every element by itself, as they do.
# CogVideoX's DPM, which xfuser wraps too, draws noise of the size of a rank's own rows.
_STEPS_PARTS: dict[str, dict[str, tuple[object, ...]]] = {
    "FlowMatchEulerDiscreteScheduler": {"stochastic_sampling": (False,)},
    "DPMSolverMultistepScheduler": {
        "algorithm_type": ("dpmsolver++", "dpmsolver"),
        "thresholding": (False,),
        "solver_order": (1, 2),
    },
    "DDIMScheduler": {"thresholding": (False,)},
    "CogVideoXDDIMScheduler": {},
    "DDPMScheduler": {"thresholding": (False,)},
}


def check_scheduler(plan: Plan, folder: ModelFolder | None) -> None:
    """Refuse a scheduler that looks at, or draws noise for, more of the image than a rank holds.

    folder: the pipeline's; None where it is built of this package's architecture. Only its scheduler's
        configuration is read.

    Raises:
        UserError: the image is spread over ranks, and this scheduler cannot step a part of it.
    """
    if plan.parallel.sequence * plan.parallel.pipefusion == 1:
        return
    if folder is None:
        part = architecture(plan.weights_from).components["scheduler"]
        name, config = part.class_name, part.config
    else:
        config = folder.component_config("scheduler")
        name = str(config.get("_class_name"))
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
