"""What both kinds of xfuser engine need before a pipeline runs: the import, the configuration, the facts."""

from __future__ import annotations

from typing import Any

import torch

from mlenergy.diffusion.config.attention import ATTENTION
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.engines.xdit import importing
from mlenergy.diffusion.engines.xdit.patches.registry import apply_patches


def prepare_xfuser(plan: Plan) -> tuple[str, ...]:
    """Import xfuser with what this device needs and with its faults patched; returns the patches' names."""
    importing.installed_version()
    importing.use_our_logging()
    if plan.device == "cpu":
        from mlenergy.diffusion.engines.xdit import cpu  # only here: nothing of it may reach a GPU run

        cpu.adapt()
    importing.import_xfuser()
    return apply_patches()


def engine_config(plan: Plan, parallel: Parallelism) -> Any:
    """xfuser's configuration for these degrees, in the plan's dtype and with its attention."""
    from xfuser.config import xFuserArgs

    config, _ = xFuserArgs(
        model=plan.weights_from,
        warmup_steps=parallel.pipefusion_warmup_steps,
        use_parallel_vae=parallel.parallel_vae,
        data_parallel_degree=parallel.data,
        use_cfg_parallel=parallel.cfg == 2,
        ulysses_degree=parallel.ulysses,
        ring_degree=parallel.ring,
        tensor_parallel_degree=parallel.tensor,
        pipefusion_parallel_degree=parallel.pipefusion,
        num_pipeline_patch=parallel.num_pipeline_patch,
        attention_backend=_attention_backend(plan),
    ).create_config()
    # PipeFusion's receive buffers have this dtype; its default of float16 breaks other runs.
    config.runtime_config.dtype = getattr(torch, plan.dtype)
    return config


def _attention_backend(plan: Plan) -> str | None:
    """The attention that xfuser is to use; None leaves the choice, among half-precision kernels, to it."""
    if plan.optimizations.attention != "auto":
        return ATTENTION[plan.optimizations.attention].xfuser
    if plan.device == "cpu":
        return "sdpa_flash"  # cpu.py puts the CPU kernel of the same family there
    if plan.dtype == "float32":
        return "sdpa"  # torch's own choice: the kernels that xfuser would take have no float32
    return None


def engine_facts(plan: Plan, patches: tuple[str, ...]) -> dict[str, Any]:
    """Facts on this engine, for the results."""
    return {
        "xfuser_version": importing.installed_version(),
        "mends": patches,  # the key of result schema 1
        "approximation": plan.approximation,
        "ranks_that_decode": "all" if plan.parallel.parallel_vae else "one a data-parallel group",
    }
