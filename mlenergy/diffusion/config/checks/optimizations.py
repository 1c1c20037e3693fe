"""Optimizations that cannot be turned on, found in the plan before anything loads; no torch.

Each line gives the reason and what would fit. What is refused here would otherwise do nothing,
crash after minutes of loading, or give an image that is wrong and not only lossy.
"""

from __future__ import annotations

import typing
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mlenergy.diffusion.config.attention import ATTENTION, attention_library
from mlenergy.diffusion.config.checks import compiling, layouts
from mlenergy.diffusion.config.optimizations import OPTIMIZATIONS, AttentionName
from mlenergy.diffusion.environment.capability import capability_of
from mlenergy.diffusion.environment.extras import missing_extra
from mlenergy.diffusion.models.spec import CacheMethod

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


def _device(plan: Plan) -> str | None:
    if plan.device != "mps":
        return None
    untried = [record.option for record in plan.optimizations.in_use.values() if not record.tried_on_mps]
    if not untried:
        return None
    return f"--{untried[0]} was never tried on Apple's GPU and is not offered there; leave it out"


def _attention(plan: Plan) -> str | None:
    name, dtype = plan.optimizations.attention, plan.dtype
    if name == "auto":
        return None
    option, kernel = f"--attention_backend {name}", ATTENTION[name]
    if not plan.spec.family.takes_attention_kernel:
        family = plan.spec.family.name
        return f"{option}: no kernel can be chosen for the attention of {family} models; leave it out"
    if plan.device == "cpu" and not kernel.runs_on_cpu:
        return f"{option} runs on NVIDIA GPUs only; on the CPU use one of {', '.join(sorted(_on_cpu()))}"
    if plan.device == "cuda" and dtype == "float32" and kernel.half_precision_only:
        return f"{option} has no float32; use --workload.dtype bfloat16, or --attention_backend efficient"
    package, major = kernel.package, capability_of(plan.device_name)
    if kernel.capabilities and major is not None and major not in kernel.capabilities:
        return (
            f"{option} is built for other GPUs than {plan.device_name} (compute capability "
            f"{' and '.join(f'{one}.x' for one in sorted(kernel.capabilities))}); use flash or cudnn"
        )
    if package is not None and not _is_installed(package):
        return f"{option} needs the package {package}; install it, or use flash or cudnn, which torch brings"
    library = attention_library(plan)
    if getattr(kernel, library) is None:
        brings = "these degrees bring" if library == "xfuser" else "this run has"
        others = sorted(one for one, known in ATTENTION.items() if getattr(known, library) is not None)
        return f"{option}: {library}, whose attention {brings}, has it not; use one of {', '.join(others)}"
    fits = _fitting_kernels(plan)
    if name in fits:
        return None
    return (
        f"{option} cannot share a sequence by ulysses {plan.parallel.ulysses} x ring {plan.parallel.ring} in "
        f"the {plan.engine} engine{' on the CPU' if plan.device == 'cpu' else ''}; use one of "
        f"{', '.join(sorted(fits))}"
    )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a package's package
        return False


def _fitting_kernels(plan: Plan) -> set[AttentionName]:
    """Kernels that the plan's attention layers can run; rings need the log-sum-exp of each part."""
    parallel, names = plan.parallel, _on_cpu() if plan.device == "cpu" else set(ATTENTION)
    if attention_library(plan) == "xfuser":
        names = {name for name in names if ATTENTION[name].xfuser is not None}
        return {name for name in names if parallel.ring == 1 or ATTENTION[name].gives_log_sum_exp}
    names = {name for name in names if ATTENTION[name].diffusers is not None}
    if parallel.sequence == 1:
        return names
    if plan.device == "cpu":
        return {"sdpa"}  # engines/diffusers/cpu.py gives that one its log-sum-exp
    without = {name for name in names if parallel.ring > 1 and not ATTENTION[name].gives_log_sum_exp}
    return {name for name in names if ATTENTION[name].shares_in_diffusers} - without


def _on_cpu() -> set[AttentionName]:
    return {name for name, kernel in ATTENTION.items() if kernel.runs_on_cpu}


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
        or optimizations.fuse_qkv
    ):
        return (
            "--attention_slicing brings its own attention, in a Python loop; use it without "
            "--attention_backend, --use_torch_compile, --fuse_qkv and caches"
        )
    return None


def _quantization(plan: Plan) -> str | None:
    kind = plan.optimizations.quantization
    if kind is None:
        return None
    missing = missing_extra("torchao", "quantization")
    if missing is not None:
        return f"--quantization {kind} {missing}"
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
    family = plan.spec.family
    if not plan.optimizations.fp8_t5_encoder or family.has_t5:
        return None
    return f"--use_fp8_t5_encoder: {family.name} has no T5 text encoder; leave it out"


def _offload(plan: Plan) -> str | None:
    kind = plan.optimizations.offload
    if kind is None:
        return None
    option = f"--{OPTIMIZATIONS['offload'].option_for(kind)}"
    if plan.device != "cuda":
        why = "on the CPU they are there already" if plan.device == "cpu" else "an Apple GPU shares it"
        return f"{option} keeps weights in host memory until a GPU needs them; {why}; leave it out"
    if plan.parallel.world_size > 1:
        return f"{option} moves the weights of one process; use it without parallel degrees"
    hooking = [record.option for record in plan.optimizations.in_use.values() if record.hooks_layers]
    return f"{option} and --{hooking[0]} hook the same layers; use one of them" if hooking else None


def _vae_slicing(plan: Plan) -> str | None:
    images = plan.batch_size // plan.parallel.data
    if not plan.optimizations.vae_slicing or images > 1:
        return None
    output = plan.spec.family.output
    return (
        f"--vae_slicing decodes the {output}s of a batch one by one; with one {output} at a time "
        f"(--workload.batch_size {plan.batch_size}) it does nothing; use a larger batch, or leave it out"
    )


def _decodes_one(plan: Plan) -> str | None:
    videos = plan.batch_size // plan.parallel.data
    if videos == 1 or plan.optimizations.vae_slicing or not plan.spec.family.decodes_one:
        return None
    return (
        f"--workload.batch_size {plan.batch_size}: the VAE of {plan.spec.family.name} fails on a batch, of "
        f"{videos} here, in diffusers 0.42.1; add --vae_slicing"
    )


def _tiles_alone(plan: Plan) -> str | None:
    if plan.optimizations.vae_tiling or not plan.spec.family.tiles_alone:
        return None
    return f"the VAE of {plan.spec.family.pipeline_class} decodes in tiles alone; add --vae_tiling"


def _parallel_vae(plan: Plan) -> str | None:
    optimizations = plan.optimizations
    if not plan.parallel.parallel_vae or not (optimizations.vae_slicing or optimizations.vae_tiling):
        return None
    option = "--vae_slicing" if optimizations.vae_slicing else "--vae_tiling"
    return f"{option} and --use_parallel_vae cut the same decoder; use one of them"


# Of diffusers; the others are told which half of guidance a call is.
_COUNTING_CACHES: frozenset[CacheMethod] = frozenset({"pab", "fastercache"})


def _cache_offered(plan: Plan) -> str | None:
    method, engine, family = plan.optimizations.cache, plan.engine, plan.spec.family
    offered = family.caches.get(engine, frozenset())
    if method is None or method in offered:
        return None
    elsewhere = [name for name, caches in family.caches.items() if method in caches]
    here = [name for name in typing.get_args(CacheMethod) if name in offered]
    instead = f"use --engine {elsewhere[0]}" if elsewhere else "leave it out"
    if here:
        instead += f", or --cache_method {' or '.join(here)}"
    if family.separate_guidance and method in _COUNTING_CACHES:
        return (
            f"cache {method} counts a denoiser's calls, of which guidance makes two a step for {family.name} "
            f"models, and would give one half the other's attention; {instead}"
        )
    return f"cache {method}: the {engine} engine has none for {family.name} models; {instead}"


def _cache_modes(plan: Plan) -> str | None:
    method, parallel = plan.optimizations.cache, plan.parallel
    if method is None:
        return None
    if plan.steps < 2:
        return f"cache {method} reuses what an earlier step has computed, and there is one step; use more"
    if method == "fastercache" and plan.spec.guidance == "classifier-free" and not plan.runs_guidance_batch:
        scale = plan.guidance_scale or 0
        return f"cache fastercache saves guidance, and guidance scale {scale:g} runs none; use one above 1"
    agree = 1 if plan.engine == "diffusers" else parallel.sequence  # xfuser's take the ranks' mean
    if parallel.world_size // parallel.data == agree:
        return None
    instead = "--data_parallel_degree"
    instead += "" if plan.engine == "diffusers" else " or --ulysses_degree and --ring_degree"
    return (
        f"cache {method} decides in each process by what that one holds, and processes that share an image "
        f"would part; use {instead} alone"
    )


def _scheduler(plan: Plan) -> str | None:
    name, family, parallel = plan.optimizations.scheduler, plan.spec.family, plan.parallel
    if name == "own":
        return None
    if family.gives_sigmas and name != "euler":
        return (
            f"--scheduler {name}: {family.name} gives the scheduler noise levels of its own, which "
            f"{name} does not take; use euler or own"
        )
    if family.predicts == "flow" and name == "ddim":
        return (
            f"--scheduler ddim steps noise predictions, and {family.name} predicts a flow; use unipc or own"
        )
    if parallel.pipefusion > 1:
        return f"--scheduler {name}: PipeFusion steps the image in patches; use own"
    parts = {"euler"} if family.predicts == "flow" else {"ddim", "dpmsolver++"}
    steps_parts = plan.engine == "xdit" and family.exchanged_transformer is None
    if steps_parts and parallel.sequence > 1 and name not in parts:
        return (
            f"--scheduler {name}: the xdit engine steps a part of the image on each process by "
            f"{' or '.join(sorted(parts))} or the model's own; use one of these, or --engine diffusers"
        )
    if plan.engine == "xdit" and parallel.tensor > 1 and name not in parts:
        return (
            f"--scheduler {name}: xfuser's tensor-parallel pipeline gives the scheduler noise levels that "
            f"{name} does not take; use euler or own, or --engine diffusers"
        )
    return None


CHECKS = (
    _device,
    _attention,
    _attention_slicing,
    _quantization,
    _layerwise,
    _t5,
    _offload,
    _vae_slicing,
    _decodes_one,
    _tiles_alone,
    _parallel_vae,
    _cache_offered,
    _cache_modes,
    _scheduler,
    *compiling.CHECKS,
    *layouts.CHECKS,
)
