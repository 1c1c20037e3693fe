"""Another scheduler than the model's own, made from the own one's settings."""

from __future__ import annotations

from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from mlenergy.diffusion.config.optimizations import SchedulerName

_BY_NAME: dict[SchedulerName, Any] = {
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "euler": EulerDiscreteScheduler,
}


_SHIFT_BY_SIZE = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")


def replace_scheduler(pipeline: Any, name: SchedulerName) -> None:
    """Put the named scheduler into the pipeline; noise schedule and prediction type are the model's."""
    own = pipeline.scheduler.config
    if isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler):
        pipeline.scheduler = _for_flow(own, name)
        return
    if name == "euler" and own.get("prediction_type") == "flow_prediction":
        # Sana's and Wan's own are solvers of a flow; EulerDiscreteScheduler steps noise predictions alone.
        steps = {"num_train_timesteps": own.num_train_timesteps, "shift": own.flow_shift}
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(**steps)
        return
    options: dict[str, Any] = {"algorithm_type": "dpmsolver++"} if name == "dpmsolver++" else {}
    if name == "ddim":
        # Its default cuts predicted images off at ±1, which is for pixels: latents reach further. Schedulers
        # whose settings do not name it never do so.
        options["clip_sample"] = own.get("clip_sample", False)
    pipeline.scheduler = _BY_NAME[name].from_config(own, **options)


def scheduler_record(scheduler: Any) -> dict[str, Any]:
    """Class and prediction type; of xfuser's wrapper, what is inside."""
    bare = getattr(scheduler, "module", scheduler)
    flows = isinstance(bare, FlowMatchEulerDiscreteScheduler)
    prediction = "flow_prediction" if flows else bare.config.get("prediction_type")
    return {"class": type(bare).__name__, "prediction_type": prediction}


def _for_flow(own: Any, name: SchedulerName) -> Any:
    """For models that predict a flow: the same shift of the noise levels, another way to step."""
    if name == "euler":
        return FlowMatchEulerDiscreteScheduler.from_config(own)
    kind = {"dpmsolver++": FlowDPMSolver, "unipc": FlowUniPC}[name]
    scheduler: Any = kind(
        num_train_timesteps=own.num_train_timesteps,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=own.shift,
        use_dynamic_shifting=own.use_dynamic_shifting,
    )
    # Pipelines read from it how an image's size moves the shift, and where it is missing some take
    # FLUX.1-dev's values in silence.
    scheduler.register_to_config(**{key: own[key] for key in _SHIFT_BY_SIZE if key in own})
    return scheduler


class FlowDPMSolver(DPMSolverMultistepScheduler):  # type: ignore[misc]  # diffusers is untyped
    """Pipelines always hand over the shift of their image's size; a fixed one ignores it, as the own does."""

    def set_timesteps(self, *args: Any, mu: float | None = None, **options: Any) -> None:
        """As the base class."""
        super().set_timesteps(*args, mu=mu if self.config.use_dynamic_shifting else None, **options)


class FlowUniPC(UniPCMultistepScheduler):  # type: ignore[misc]
    """As `FlowDPMSolver`."""

    def set_timesteps(self, *args: Any, mu: float | None = None, **options: Any) -> None:
        """As the base class."""
        super().set_timesteps(*args, mu=mu if self.config.use_dynamic_shifting else None, **options)
