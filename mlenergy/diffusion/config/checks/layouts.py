"""Memory layouts, fused layers and precisions of products that cannot be had, or would do nothing; no torch.

Each line gives the reason and what would fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlenergy.diffusion.config.attention import attention_library

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


def _fuse_qkv(plan: Plan) -> str | None:
    family, parallel = plan.spec.family, plan.parallel
    if not plan.optimizations.fuse_qkv:
        return None
    if not family.fuses_qkv:
        return (
            f"--fuse_qkv: diffusers' attention of {family.name} models reads queries, keys and values from "
            "layers of their own; leave it out"
        )
    if plan.spec.dual_attention:
        model = plan.spec.model_id
        return (
            f"--fuse_qkv: diffusers' fused layers fail in the second self-attention of {model}; leave it out"
        )
    if parallel.tensor > 1:
        return (
            "--fuse_qkv: --tensor_parallel_degree cuts queries, keys and values apart; use --ulysses_degree"
        )
    if attention_library(plan) == "xfuser":
        return (
            "--fuse_qkv: xfuser's own attention, which this run has, does not read fused projections; use "
            "--engine diffusers, or leave it out"
        )
    return None


def _unet_channels_last(plan: Plan) -> str | None:
    if not plan.optimizations.unet_channels_last or plan.spec.family.denoiser == "unet":
        return None
    return (
        f"--unet_channels_last: the denoiser of {plan.spec.family.name} is a transformer, which has no "
        "convolutions to speed up; leave it out"
    )


def _vae_channels_last(plan: Plan) -> str | None:
    if not plan.optimizations.vae_channels_last:
        return None
    family = plan.spec.family
    if family.decodes_over_time or plan.spec.frame_factor > 1:
        return (
            f"--vae_channels_last: the decoder of {family.name} models convolves over time too, and its "
            "layers undo the layout; leave it out"
        )
    if not plan.parallel.parallel_vae:
        return None
    return "--vae_channels_last: --use_parallel_vae brings a decoder of its own; use one of them"


def _cudnn_benchmark(plan: Plan) -> str | None:
    if not plan.optimizations.cudnn_benchmark or plan.device == "cuda":
        return None
    return f"--cudnn_benchmark is for NVIDIA GPUs, and this run is on {plan.device}; leave it out"


def _tf32(plan: Plan) -> str | None:
    if not plan.optimizations.tf32:
        return None
    if plan.device != "cuda":
        return f"--tf32 is for NVIDIA GPUs, and this run is on {plan.device}; leave it out"
    if "float32" in (plan.dtype, plan.optimizations.vae_dtype):
        return None
    if plan.dtype == "float16" and plan.spec.family.upcasts_vae and plan.optimizations.vae_dtype == "own":
        return None  # its VAE decodes in float32
    return (
        f"--tf32 changes float32 products, and this run has none, in {plan.dtype}; use --workload.dtype "
        "float32, or leave it out"
    )


CHECKS = (_fuse_qkv, _unet_channels_last, _vae_channels_last, _cudnn_benchmark, _tf32)
