"""Refusals of what cannot be compiled, and of compiler options that would do nothing; no torch.

Each line gives the reason and what would fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlenergy.diffusion.config.optimizations import CUDA_GRAPH_MODES, OPTIMIZATIONS, STEP_CACHES

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

# Options that say how to compile, and do nothing where nothing is compiled.
_HOW = (
    *("inductor_mode", "inductor_coordinate_descent", "inductor_conv_1x1_as_mm", "inductor_epilogue_fusion"),
    *("compile_fullgraph", "compile_static_shapes", "compile_cache"),
)


def _denoiser(plan: Plan) -> str | None:
    optimizations, parallel = plan.optimizations, plan.parallel
    if optimizations.compile_mode is None:
        return None
    if parallel.pipefusion * parallel.tensor > 1:
        mode = "--pipefusion_parallel_degree" if parallel.pipefusion > 1 else "--tensor_parallel_degree"
        return f"--use_torch_compile was not tried with {mode} and is not offered; use --ulysses_degree"
    text = plan.text_tokens_in_sequence
    if plan.engine == "diffusers" and text % parallel.sequence:
        length = plan.max_sequence_length or 0
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


def _nothing_compiled(plan: Plan) -> str | None:
    optimizations = plan.optimizations
    how = [name for name in _HOW if name in optimizations.in_use]
    if not how:
        return None
    if not optimizations.compiled_parts:
        option = OPTIMIZATIONS[how[0]].option
        return f"--{option} says how to compile; add --use_torch_compile, or leave it out"
    if optimizations.compile_fullgraph and optimizations.compile_mode is None:
        return "--compile_fullgraph is for the denoiser; add --use_torch_compile, or leave it out"
    return None


def _cuda_graphs(plan: Plan) -> str | None:
    """Recorded kernels read and write the addresses that they were recorded with."""
    optimizations = plan.optimizations
    mode = optimizations.inductor_mode
    if mode not in CUDA_GRAPH_MODES:
        return None
    option, instead = f"--inductor_mode {mode}", f"use {CUDA_GRAPH_MODES[mode]}"
    if plan.device != "cuda":
        return f"{option} records CUDA graphs, which need an NVIDIA GPU; {instead}"
    if optimizations.compile_mode is None:
        return f"{option} records the denoiser; add --use_torch_compile --compile_mode whole, or {instead}"
    if optimizations.cache is not None:
        return f"{option}: cache {optimizations.cache} decides in each step what runs; {instead}"
    if optimizations.compile_mode == "regional":
        return (
            f"{option}: a graph of each block would be recorded with that block's weights, and torch gives "
            f"up after some; use --compile_mode whole, or {instead}"
        )
    return None


def _vae(plan: Plan) -> str | None:
    if not plan.optimizations.compile_vae:
        return None
    if plan.parallel.parallel_vae:
        return "--compile_vae: --use_parallel_vae brings a decoder of its own; use one of them"
    if plan.spec.family.makes_video:
        return "--compile_vae was not tried with decoders of videos and is not offered; leave it out"
    return None


CHECKS = (_denoiser, _nothing_compiled, _cuda_graphs, _vae)
