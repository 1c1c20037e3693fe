"""The known faults of xfuser 0.7.0 that change an image, a measurement, or crash; none is left silent.

Each is either patched, for as long as a test still sees it without the patch, or the set-up is
refused before anything loads (config/checks/), or it cannot be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from mlenergy.diffusion.engines.xdit import importing
from mlenergy.diffusion.engines.xdit.patches import attention, exchanged, guidance, pipelines, scheduler
from mlenergy.diffusion.engines.xdit.patches.patch import Patch

_ONLY_THIS = SpecifierSet("==0.7.0")


@dataclass(frozen=True)
class KnownFault:
    """One fault and its patches.

    versions: those of xfuser that the patches were written for; they are not applied to others.
    upstream: file and function of xfuser where the fault is.
    silent: True where it gives a wrong image, or a wrong measurement, without an error.
    """

    name: str
    fault: str
    versions: SpecifierSet
    upstream: str
    silent: bool
    patches: Callable[[], list[Patch]]


KNOWN_FAULTS: tuple[KnownFault, ...] = (
    KnownFault(
        "sd3-pipefusion-cache",
        "SD3 under PipeFusion updates its key cache twice and crashes",
        _ONLY_THIS,
        "model_executor/layers/attention_processor.py: xFuserJointAttnProcessor2_0.__call__",
        False,
        attention.sd3_cache_updated_twice,
    ),
    KnownFault(
        "sd3.5-dual-attention",
        "SD3.5's second attention crashes under sequence parallelism",
        _ONLY_THIS,
        "model_executor/layers/attention_processor.py: xFuserJointAttnProcessor2_0.__call__",
        False,
        attention.sd35_dual_attention,
    ),
    KnownFault(
        "ulysses-pipefusion-cache",
        "Ulysses with PipeFusion mixes up the cached keys of patches and ranks",
        _ONLY_THIS,
        "core/cache_manager/cache_manager.py: CacheManager._sequence_parallel_cache_update",
        True,
        attention.ulysses_pipefusion_cache,
    ),
    KnownFault(
        "flux-uneven-text",
        "FLUX counts the text once a rank where the ranks cannot share it evenly",
        _ONLY_THIS,
        "model_executor/models/transformers/transformer_flux.py: xFuserFluxAttnProcessor.__call__",
        True,
        attention.flux_uneven_text,
    ),
    KnownFault(
        "ddpm-noise",
        "DDPM draws the same noise on every rank of a shared image",
        _ONLY_THIS,
        "model_executor/schedulers/scheduling_ddpm.py: xFuserDDPMSchedulerWrapper.step",
        True,
        scheduler.ddpm_noise_of_the_whole_image,
    ),
    KnownFault(
        "guidance-off",
        "guidance scales up to 1 crash (SD3, PixArt) or give a wrong image (HunyuanDiT) in parallel",
        _ONLY_THIS,
        "model_executor/pipelines/pipeline_*.py: _backbone_forward",
        True,
        guidance.forwards_without_guidance,
    ),
    KnownFault(
        "sdxl-guidance-rows",
        "SDXL on two ranks gives each one row of the batch, and keeps the first call's size",
        _ONLY_THIS,
        "model_executor/patch/unet_patch.py: unet_cfg_parallel_monkey_patch_forward",
        True,
        pipelines.sdxl_guidance_rows,
    ),
    KnownFault(
        "sd3-text-length",
        "SD3 in parallel encodes 256 text tokens whatever was asked for",
        _ONLY_THIS,
        "model_executor/pipelines/pipeline_stable_diffusion_3.py: __call__",
        True,
        pipelines.sd3_text_length,
    ),
    KnownFault(
        "parallel-vae-groups",
        "parallel VAE forms a process group inside every call",
        _ONLY_THIS,
        "model_executor/pipelines/base_pipeline.py: gather_broadcast_latents",
        True,
        pipelines.latents_without_new_groups,
    ),
    KnownFault(
        "flow-euler-waits",
        "flow-match Euler on shared images makes the host wait in every step, and draws an unused noise",
        _ONLY_THIS,
        "model_executor/schedulers/scheduling_flow_match_euler_discrete.py: step",
        True,
        scheduler.flow_euler_steps_as_diffusers,
    ),
    KnownFault(
        "cudnn-views",
        "cuDNN's attention is called on views that are not contiguous, above all in the ring",
        _ONLY_THIS,
        "core/distributed/attention_backend.py: _cudnn_attn_call",
        True,
        attention.cudnn_takes_contiguous_tensors,
    ),
    KnownFault(
        "efficient-ring-padding",
        "ring with memory-efficient attention crashes where a rank's tokens are no multiple of 32",
        _ONLY_THIS,
        "core/distributed/attention_backend.py: _sdpa_efficient_attn_call",
        False,
        attention.efficient_attention_without_padding,
    ),
    KnownFault(
        "hunyuandit-rotary-copies",
        "HunyuanDiT's rotary embedding stays on the CPU and is copied in every attention layer of every step",
        _ONLY_THIS,
        "model_executor/pipelines/pipeline_hunyuandit.py: __call__",
        True,
        pipelines.hunyuandit_rotary_on_device,
    ),
    KnownFault(
        "caches-on-first-gpu",
        "the caches' buffers are made on the first GPU by every rank",
        _ONLY_THIS,
        "model_executor/cache/utils.py: CacheContext, CachedTransformerBlocks",
        True,
        pipelines.caches_on_own_device,
    ),
    KnownFault(
        "flux2-uneven-text",
        "FLUX.2 counts the text once a rank where the ranks cannot share it evenly",
        _ONLY_THIS,
        "model_executor/models/transformers/transformer_flux2.py: xFuserFlux2AttnProcessor.__call__",
        True,
        exchanged.flux2_uneven_text,
    ),
    KnownFault(
        "flux2-pipefusion-cache",
        "FLUX.2 under PipeFusion updates its key cache twice and crashes",
        _ONLY_THIS,
        "model_executor/models/transformers/transformer_flux2.py: xFuserFlux2AttnProcessor.__call__",
        False,
        exchanged.flux2_cache_updated_twice,
    ),
    KnownFault(
        "qwen-uneven-text",
        "Qwen-Image pads a text that the ranks cannot share evenly with zeros, and attends to them",
        _ONLY_THIS,
        "model_executor/models/transformers/transformer_qwen.py: forward",
        True,
        exchanged.qwen_uneven_text,
    ),
    KnownFault(
        "z-image-arguments",
        "Z-Image lacks the argument joint_attention_kwargs, which diffusers 0.42.1's pipeline passes",
        _ONLY_THIS,
        "model_executor/models/transformers/transformer_z_image.py: forward",
        False,
        exchanged.z_image_arguments,
    ),
    KnownFault(
        "latte-temporal-attention",
        "Latte's attention over time is shared like that over a frame: patches attend to other ranks' ones",
        _ONLY_THIS,
        "model_executor/layers/attention_processor.py: xFuserAttnProcessor2_0.__call__",
        True,
        attention.latte_temporal_attention,
    ),
)

# Faults that this engine cannot run into, and why.
UNREACHABLE: dict[str, str] = {
    "hunyuandit-uneven-stages": (
        "`attn_layer_num_for_pp` is off by one in HunyuanDiT (a wrong image); the engine never passes it"
    ),
    "prepare-run-text": "`prepare_run` warms up with a text of its own; the engine never calls it",
    "hunyuan-video-attention": (
        "HunyuanVideo's transformer gets its attention in `from_config` alone: one that is constructed "
        "otherwise gives a wrong video; the engine builds it by `from_config`"
    ),
    "half-precision-buffers": (
        "PipeFusion's receive buffers are float16 by default; the engine sets the run's dtype"
    ),
}

# Faults whose set-ups are refused (config/checks/, or a mode that models/families.py does not offer).
REFUSED: dict[str, str] = {
    "tensor-sequence": (
        "tensor-parallel with Ulysses or ring gives a wrong image: yunchang's groups take neighbouring "
        "ranks, which are xfuser's tensor-parallel ones"
    ),
    "tensor-nothing": (
        "tensor-parallel splits only FLUX's feed-forward layers; for the other families every rank does "
        "all the work"
    ),
    "parallel-vae-data": (
        "parallel VAE with data-parallel groups decodes every group's images in each of them"
    ),
    "parallel-vae-alone": "parallel VAE without another mode does nothing and says nothing",
    "hunyuandit-pipefusion-guidance": "HunyuanDiT's PipeFusion needs the guidance batch",
    "pipefusion-patches": "PipeFusion takes fewer patches than asked for where they do not fit",
    "text-masks": (
        "Qwen-Image's, Z-Image's and both HunyuanVideos' transformers ignore the mask of a batch's padded "
        "texts under Ulysses and ring: a rank takes one row"
    ),
    "klein-guidance": (
        "the pipeline for FLUX.2 klein leaves guidance out and says nothing; klein's transformer serves "
        "diffusers' own"
    ),
    "klein-uneven-text": (
        "FLUX.2's transformer in diffusers' pipeline hangs on a text that the ranks cannot share evenly"
    ),
    "flux2-patches-sequence": "FLUX.2 crashes where PipeFusion's patches are shared by Ulysses or ring",
    "flux2-parallel-vae": "parallel VAE hangs in FLUX.2's pipeline, as only its last ranks decode",
    "noise-schedulers": (
        "schedulers without a wrapper of xfuser's, and CogVideoX's DPM, draw noise for each rank's part alone"
    ),
    "cogvideox-guidance-off": (
        "CogVideoX's pipeline crashes at guidance scales up to 1 where ranks share a sequence"
    ),
    "latte-guidance": (
        "CFG-parallel in Latte's pipeline leaves both halves of the guidance batch to each of the two ranks"
    ),
    "video-uneven-tokens": "HunyuanVideo's ranks wait for ever where they cannot share the tokens evenly",
}

_reverts: dict[str, list[Callable[[], None]]] = {}


def apply_patches(without: Collection[str] = ()) -> tuple[str, ...]:
    """Apply the patches of every fault that this xfuser has; returns the faults' names. Safe to call again.

    without: faults whose patches are left out, or reverted, for the tests that show the fault.
    """
    version = importing.installed_version()
    wanted = {
        fault.name: fault for fault in KNOWN_FAULTS if version in fault.versions and fault.name not in without
    }
    for name in [name for name in _reverts if name not in wanted]:
        for revert in reversed(_reverts.pop(name)):
            revert()
    for name, fault in wanted.items():
        if name not in _reverts:
            _reverts[name] = [patch.apply() for patch in fault.patches()]
    return tuple(wanted)
