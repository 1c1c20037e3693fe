"""Optimizations that cannot be turned, found in the plan before anything loads; no torch.

Each line gives the reason and what would fit. What is refused here would otherwise do nothing,
crash after minutes of loading, or give an image that is wrong and not only lossy.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from mlenergy.diffusion.config.checks.diffusers import split_text_tokens
from mlenergy.diffusion.config.checks.stored_weights import check_weights
from mlenergy.diffusion.config.optimizations import CACHES, STEP_CACHES, AttentionName

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.spec import EngineName

_FLOW = frozenset({"flux", "sd3"})  # they learn a flow; the others noise or velocity

_ON_CPU: frozenset[AttentionName] = frozenset({"sdpa", "math", "flash"})
_HALF_ONLY: frozenset[AttentionName] = frozenset({"flash", "cudnn", "fa2", "fa3", "sage"})
_PACKAGES: dict[AttentionName, str] = {
    "fa2": "flash_attn",
    "fa3": "flash_attn_interface",
    "sage": "sageattention",
}
# What shares a sequence in each engine, on a GPU; rings need the log-sum-exp of each part.
_IN_SEQUENCE: dict[EngineName, frozenset[AttentionName]] = {
    "diffusers": frozenset({"sdpa", "flash", "cudnn", "fa2", "sage"}),
    "xdit": frozenset({"sdpa", "math", "flash", "efficient", "cudnn", "fa2", "fa3", "sage"}),
}
_WITHOUT_LSE: frozenset[AttentionName] = frozenset({"sdpa", "math", "sage"})


def check_optimizations(plan: Plan) -> str | None:
    """The first reason why a optimization of this plan cannot be turned, or None."""
    checks = (*(_device, _attention, check_weights, _cache_offered, _cache_modes, _compile, _scheduler),)
    return next((line for line in (check(plan) for check in checks) if line), None)


def _device(plan: Plan) -> str | None:
    optimizations = plan.optimizations
    if plan.device != "mps":
        return None
    only = {
        "--use_torch_compile": optimizations.compile_mode,
        "--quantization": optimizations.quantization,
        "--layerwise_fp8": optimizations.layerwise_fp8,
        "--use_fp8_t5_encoder": optimizations.fp8_t5_encoder,
        "--attention_backend": optimizations.attention != "auto",
    }
    asked = [option for option, is_on in only.items() if is_on]
    return (
        f"{asked[0]} was never tried on Apple's GPU and is not offered there; leave it out" if asked else None
    )


def _attention(plan: Plan) -> str | None:
    name, dtype = plan.optimizations.attention, plan.dtype
    option = f"--attention_backend {name}"
    if name == "auto":
        return None
    if plan.device == "cpu" and name not in _ON_CPU:
        return f"{option} runs on NVIDIA GPUs only; on the CPU use one of {', '.join(sorted(_ON_CPU))}"
    if plan.device == "cuda" and dtype == "float32" and name in _HALF_ONLY:
        return f"{option} has no float32; use --workload.dtype bfloat16, or --attention_backend efficient"
    package = _PACKAGES.get(name)
    if package is not None and find_spec(package) is None:
        return f"{option} needs the package {package}; install it, or use flash or cudnn, which torch brings"
    return _attention_in_parallel(plan)


def _attention_in_parallel(plan: Plan) -> str | None:
    name, parallel, engine = plan.optimizations.attention, plan.parallel, plan.engine
    split = parallel.world_size > parallel.data if engine == "xdit" else parallel.sequence > 1
    if not split or plan.spec.family.denoiser == "unet":
        return None
    if plan.device == "cpu":
        only = "flash" if engine == "xdit" else "sdpa"
        if name == only:
            return None
        return (
            f"--attention_backend {name}: on the CPU an image that {parallel.world_size // parallel.data} "
            f"processes share is attended by {only} only; use that, or one process"
        )
    if name not in _IN_SEQUENCE[engine] or (parallel.ring > 1 and name in _WITHOUT_LSE):
        fits = sorted(_IN_SEQUENCE[engine] - (_WITHOUT_LSE if parallel.ring > 1 else set()))
        return (
            f"--attention_backend {name} cannot share a sequence by ulysses {parallel.ulysses} x ring "
            f"{parallel.ring} in the {engine} engine; use one of {', '.join(fits)}"
        )
    return None


def _cache_offered(plan: Plan) -> str | None:
    method, engine, family = plan.optimizations.cache, plan.engine, plan.spec.family.name
    if method is None or family in CACHES[engine].get(method, ()):
        return None
    elsewhere = [name for name, caches in CACHES.items() if family in caches.get(method, ())]
    here = [name for name, families in CACHES[engine].items() if family in families]
    instead = f"use --engine {elsewhere[0]}" if elsewhere else "leave it out"
    if here:
        instead += f", or --cache_method {' or '.join(here)}"
    return f"cache {method}: the {engine} engine has none for {family} models; {instead}"


def _cache_modes(plan: Plan) -> str | None:
    method, parallel = plan.optimizations.cache, plan.parallel
    if method is None:
        return None
    if plan.steps < 2:
        return f"cache {method} reuses what an earlier step has computed, and there is one step; use more"
    if method == "fastercache" and plan.spec.guidance == "classifier-free":
        scale = plan.guidance_scale or 0
        if scale <= 1:
            return (
                f"cache fastercache saves guidance, and guidance scale {scale:g} runs none; use one above 1"
            )
    agree = 1 if plan.engine == "diffusers" else parallel.sequence  # xfuser's take the ranks' mean
    if parallel.world_size // parallel.data == agree:
        return None
    instead = "--data_parallel_degree"
    instead += "" if plan.engine == "diffusers" else " or --ulysses_degree and --ring_degree"
    return (
        f"cache {method} decides in each process by what that one holds, and processes that share an image "
        f"would part; use {instead} alone"
    )


def _compile(plan: Plan) -> str | None:
    optimizations, parallel = plan.optimizations, plan.parallel
    if optimizations.compile_mode is None:
        return None
    if parallel.pipefusion * parallel.tensor > 1:
        mode = "--pipefusion_parallel_degree" if parallel.pipefusion > 1 else "--tensor_parallel_degree"
        return f"--use_torch_compile was not tried with {mode} and is not offered; use --ulysses_degree"
    if plan.engine == "diffusers" and split_text_tokens(plan) % parallel.sequence:
        text, length = split_text_tokens(plan), plan.max_sequence_length or 0
        fits = length - text % parallel.sequence
        return (
            f"--use_torch_compile: {parallel.sequence} processes cannot share {text} text tokens evenly, and "
            "what diffusers does then cannot be compiled; use --workload.max_sequence_length "
            f"{fits if fits > 0 else fits + parallel.sequence}"
        )
    if optimizations.cache is None:
        return None
    if optimizations.cache not in STEP_CACHES:
        return (
            f"cache {optimizations.cache} works inside of the blocks that --use_torch_compile would compile; "
            f"use one of {', '.join(sorted(STEP_CACHES))}, or leave one out"
        )
    if optimizations.compile_mode == "whole":
        return f"cache {optimizations.cache} skips blocks of the denoiser; use --compile_mode regional"
    return None


def _scheduler(plan: Plan) -> str | None:
    name, family, parallel = plan.optimizations.scheduler, plan.spec.family.name, plan.parallel
    if name == "own":
        return None
    if family in _FLOW and name == "ddim":
        return f"--scheduler ddim steps noise predictions, and {family} predicts a flow; use unipc or own"
    if parallel.pipefusion > 1:
        return f"--scheduler {name}: PipeFusion steps the image in patches; use own"
    parts = {"ddim", "dpmsolver++"} if family not in _FLOW else {"euler"}
    if plan.engine == "xdit" and parallel.sequence > 1 and name not in parts:
        return (
            f"--scheduler {name}: the xdit engine steps a part of the image on each process by "
            f"{' or '.join(sorted(parts))} or the model's own; use one of these, or --engine diffusers"
        )
    return None
