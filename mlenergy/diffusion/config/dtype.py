"""The dtype that a model is computed in on a device, and the one that is slow there; no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlenergy.diffusion.environment.cpu import emulates_float16

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.environment.device import DeviceType
    from mlenergy.diffusion.models.spec import Dtype, ModelSpec


def default_dtype(spec: ModelSpec, device: DeviceType) -> Dtype:
    """The model's own dtype; on a CPU float32, which every one computes at full speed."""
    return "float32" if device == "cpu" else spec.default_dtype


def slow_dtype(plan: Plan) -> str | None:
    """A line where the plan's dtype is one that its device has no instructions for."""
    if plan.device != "cpu" or plan.dtype != "float16" or not emulates_float16():
        return None
    return (
        "this CPU has no float16 arithmetic and emulates it, many times slower than float32; "
        "use --workload.dtype float32 or bfloat16"
    )
