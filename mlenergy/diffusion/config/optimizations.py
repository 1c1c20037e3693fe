"""Optimizations of a plan, as data: what makes a run faster or smaller. No torch.

engines/optimizations/ applies them and observes their effects; checks/optimizations.py refuses some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mlenergy.diffusion.models.spec import EngineName, Family

CompileMode = Literal["whole", "regional"]
AttentionName = Literal["auto", "sdpa", "math", "flash", "efficient", "cudnn", "fa2", "fa3", "sage"]
Quantization = Literal["int8-weight-only", "int8-dynamic", "fp8-weight-only", "fp8-dynamic"]
Offload = Literal["model", "sequential", "group"]
CacheMethod = Literal["fbcache", "teacache", "magcache", "taylorseer", "pab", "fastercache"]
SchedulerName = Literal["own", "ddim", "dpmsolver++", "unipc", "euler"]

# The thresholds of the libraries' own defaults; the other methods have none.
DEFAULT_THRESHOLDS: dict[CacheMethod, float] = {"fbcache": 0.12, "teacache": 0.12, "magcache": 0.06}
# These skip whole steps (all blocks but perhaps the first); the others skip attention within a step.
STEP_CACHES: frozenset[CacheMethod] = frozenset({"fbcache", "teacache", "magcache"})

# Engine -> cache -> families. TeaCache has no hook in diffusers and coefficients for FLUX only in
# xfuser; MagCache's ratios are measured for each model, and diffusers brings those of FLUX.
_TRANSFORMERS = frozenset({"flux", "sd3", "pixart-alpha", "pixart-sigma", "hunyuandit"})
CACHES: dict[EngineName, dict[CacheMethod, frozenset[str]]] = {
    "diffusers": {
        "fbcache": _TRANSFORMERS,
        "magcache": frozenset({"flux"}),
        "taylorseer": _TRANSFORMERS | {"sdxl", "sd"},
        "pab": _TRANSFORMERS | {"sdxl", "sd"},
        # PixArt-alpha's sizes come in a dictionary, whose two halves diffusers does not part.
        "fastercache": _TRANSFORMERS - {"pixart-alpha"},
    },
    "xdit": {"fbcache": frozenset({"flux"}), "teacache": frozenset({"flux"})},
}


@dataclass(frozen=True)
class Optimizations:
    """Every optimization as it is resolved; a optimization at its default changes nothing."""

    compile_mode: CompileMode | None = None  # the denoiser by torch.compile
    attention: AttentionName = "auto"  # auto: what the engine takes by itself
    quantization: Quantization | None = None  # of the linear layers in the denoiser's blocks
    layerwise_fp8: bool = False  # the denoiser's weights stored as float8, computed in the run's dtype
    fp8_t5_encoder: bool = False  # the same for the T5 text encoder
    offload: Offload | None = None  # weights in host memory, moved to the GPU when they are needed
    attention_slicing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    cache: CacheMethod | None = None
    cache_threshold: float | None = None
    scheduler: SchedulerName = "own"


def options_of(optimizations: Optimizations) -> dict[str, Any]:
    """Options that `resolve.optimizations_from` reads, by name, with the values that give the same again."""
    return {
        "use_torch_compile": optimizations.compile_mode is not None,
        "compile_mode": optimizations.compile_mode,
        "attention_backend": optimizations.attention,
        "quantization": optimizations.quantization,
        "layerwise_fp8": optimizations.layerwise_fp8,
        "use_fp8_t5_encoder": optimizations.fp8_t5_encoder,
        "enable_model_cpu_offload": optimizations.offload == "model",
        "enable_sequential_cpu_offload": optimizations.offload == "sequential",
        "enable_group_offload": optimizations.offload == "group",
        "attention_slicing": optimizations.attention_slicing,
        "vae_slicing": optimizations.vae_slicing,
        "vae_tiling": optimizations.vae_tiling,
        "use_teacache": False,
        "use_fbcache": False,
        "cache_method": optimizations.cache,
        "cache_threshold": optimizations.cache_threshold,
        "scheduler": optimizations.scheduler,
    }


def has_cache(engine: EngineName, family: Family, optimizations: Optimizations) -> bool:
    """Whether an engine has the cache that is asked for; also where none is."""
    return optimizations.cache is None or family.name in CACHES[engine].get(optimizations.cache, ())


def lossy(optimizations: Optimizations) -> list[str]:
    """What makes the images differ from the exact run's by more than rounding, in a few words each."""
    threshold = "" if optimizations.cache_threshold is None else f" at {optimizations.cache_threshold:g}"
    found: dict[str, Any] = {
        f"cache {optimizations.cache}{threshold}": optimizations.cache,
        f"{optimizations.quantization} denoiser": optimizations.quantization,
        "fp8 storage of the denoiser": optimizations.layerwise_fp8,
        "fp8 storage of the T5 encoder": optimizations.fp8_t5_encoder,
        "8-bit attention (sage)": optimizations.attention == "sage",
        "VAE in tiles": optimizations.vae_tiling,
        f"scheduler {optimizations.scheduler} instead of the model's": optimizations.scheduler != "own",
    }
    return [words for words, is_on in found.items() if is_on]
