"""Diffusers' own tensor parallelism: every rank keeps a slice of each large weight of the denoiser."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from diffusers import TensorParallelConfig

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.engines.diffusers.mesh import MeshPosition


def shard_weights(denoiser: Any, plan: Plan, position: MeshPosition) -> None:
    """Replace the planned weights of `denoiser` by this rank's slices (torch's DTensor).

    The whole denoiser is on the device for a moment before. Its class has a plan of its own;
    `models/families.py` offers the mode only where a class has one.
    """
    # The loader notes that it placed the model, and diffusers then refuses to shard it. The note
    # is about one device, with no hook of accelerate left on any module.
    denoiser.__dict__.pop("hf_device_map", None)
    assert position.mesh is not None
    config = TensorParallelConfig(mesh=position.mesh["tensor"])
    if plan.device != "cpu":
        adapted: Any = nullcontext()
    else:
        from mlenergy.diffusion.engines.diffusers import cpu

        cpu.allow_tensor_parallel()
        adapted = cpu.countable_device()
    with adapted:
        denoiser.enable_parallelism(config=config)
