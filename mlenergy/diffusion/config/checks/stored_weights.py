"""Optimizations that store or move weights, or work in parts, where they cannot be turned; no torch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

_WITHOUT_T5 = frozenset({"sdxl", "sd"})


def check_weights(plan: Plan) -> str | None:
    """The first reason why one of these optimizations cannot be turned, or None."""
    checks = (_attention_slicing, _quantization, _layerwise, _t5, _offload, _vae_slicing, _parallel_vae)
    return next((line for line in (check(plan) for check in checks) if line), None)


def _attention_slicing(plan: Plan) -> str | None:
    optimizations = plan.optimizations
    if not optimizations.attention_slicing:
        return None
    if plan.spec.family.denoiser != "unet":
        return (
            f"--attention_slicing does nothing for {plan.spec.family.name} (diffusers slices the attention "
            "of UNets only); leave it out"
        )
    if (
        optimizations.attention != "auto"
        or optimizations.compile_mode is not None
        or optimizations.cache is not None
    ):
        return (
            "--attention_slicing brings its own attention, in a Python loop; use it without "
            "--attention_backend, --use_torch_compile and caches"
        )
    return None


def _quantization(plan: Plan) -> str | None:
    kind = plan.optimizations.quantization
    if kind is None:
        return None
    if find_spec("torchao") is None:
        return f"--quantization {kind} needs the package torchao; install it: pip install torchao"
    if kind == "fp8-dynamic" and plan.device != "cuda":
        return (
            "--quantization fp8-dynamic multiplies in float8, which needs an NVIDIA GPU (Ada, Hopper or "
            "newer); use fp8-weight-only or int8-dynamic on the CPU"
        )
    if kind == "fp8-dynamic" and plan.dtype != "bfloat16":
        return "--quantization fp8-dynamic needs bfloat16 between its layers; use --workload.dtype bfloat16"
    return _whole_weights(plan, f"--quantization {kind}")


def _layerwise(plan: Plan) -> str | None:
    if not plan.optimizations.layerwise_fp8:
        return None
    if plan.optimizations.quantization is not None:
        kind = plan.optimizations.quantization
        return f"--layerwise_fp8 and --quantization {kind} store the same weights; use one"
    return _whole_weights(plan, "--layerwise_fp8")


def _whole_weights(plan: Plan, option: str) -> str | None:
    """Ranks that hold slices or stages rebuild the layers that the optimization has changed."""
    parallel = plan.parallel
    if parallel.tensor == 1 and parallel.pipefusion == 1:
        return None
    mode = "--tensor_parallel_degree" if parallel.tensor > 1 else "--pipefusion_parallel_degree"
    return f"{option} works on whole layers, which {mode} cuts or rebuilds; use --ulysses_degree instead"


def _t5(plan: Plan) -> str | None:
    family = plan.spec.family.name
    if not plan.optimizations.fp8_t5_encoder or family not in _WITHOUT_T5:
        return None
    return f"--use_fp8_t5_encoder: {family} has no T5 text encoder; leave it out"


def _offload(plan: Plan) -> str | None:
    kind, optimizations = plan.optimizations.offload, plan.optimizations
    if kind is None:
        return None
    option = "--enable_group_offload" if kind == "group" else f"--enable_{kind}_cpu_offload"
    if plan.device != "cuda":
        why = "on the CPU they are there already" if plan.device == "cpu" else "an Apple GPU shares it"
        return f"{option} keeps weights in host memory until a GPU needs them; {why}; leave it out"
    if plan.parallel.world_size > 1:
        return f"{option} moves the weights of one process; use it without parallel degrees"
    others = {
        "--use_torch_compile": optimizations.compile_mode,
        "--quantization": optimizations.quantization,
        "--layerwise_fp8": optimizations.layerwise_fp8,
        "--use_fp8_t5_encoder": optimizations.fp8_t5_encoder,
        "--cache_method": optimizations.cache,
    }
    asked = [name for name, is_on in others.items() if is_on]
    return f"{option} and {asked[0]} hook the same layers; use one of them" if asked else None


def _vae_slicing(plan: Plan) -> str | None:
    images = plan.batch_size // plan.parallel.data
    if not plan.optimizations.vae_slicing or images > 1:
        return None
    return (
        "--vae_slicing decodes the images of a batch one by one; with one image at a time "
        f"(--workload.batch_size {plan.batch_size}) it does nothing; use a larger batch, or leave it out"
    )


def _parallel_vae(plan: Plan) -> str | None:
    optimizations = plan.optimizations
    if not plan.parallel.parallel_vae or not (optimizations.vae_slicing or optimizations.vae_tiling):
        return None
    option = "--vae_slicing" if optimizations.vae_slicing else "--vae_tiling"
    return f"{option} and --use_parallel_vae cut the same decoder; use one of them"
