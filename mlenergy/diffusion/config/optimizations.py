"""Optimizations of a plan, as data: what makes a run faster or smaller. No torch.

engines/optimizations/ applies them and observes their effects; checks/optimizations.py refuses some.
A new one is a field and its record here, an option of args.py, and what an engine does about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mlenergy.diffusion.models.spec import CacheMethod

CompileMode = Literal["whole", "regional"]
InductorMode = Literal["default", "max-autotune-no-cudagraphs", "reduce-overhead", "max-autotune"]
# fmt: off
AttentionName = Literal[
    "auto", "sdpa", "math", "flash", "efficient", "cudnn", "fa2", "fa3", "fa4", "fa2-hub", "fa3-hub",
    "fa4-hub", "sage",
]
# fmt: on
Quantization = Literal["int8-weight-only", "int8-dynamic", "fp8-weight-only", "fp8-dynamic"]
Offload = Literal["model", "sequential", "group"]
VaeDtype = Literal["own", "float32", "float16", "bfloat16"]
SchedulerName = Literal["own", "ddim", "dpmsolver++", "unipc", "euler"]

# The thresholds of the libraries' own defaults; the other methods have none.
DEFAULT_THRESHOLDS: dict[CacheMethod, float] = {"fbcache": 0.12, "teacache": 0.12, "magcache": 0.06}
# These record the denoiser's kernels once and replay them. What else is compiled takes the mode beside: a
# part that runs once an image gains nothing by it.
CUDA_GRAPH_MODES: dict[InductorMode, InductorMode] = {
    "reduce-overhead": "default",
    "max-autotune": "max-autotune-no-cudagraphs",
}
# These skip whole steps (all blocks but perhaps the first); the others skip attention within a step.
STEP_CACHES: frozenset[CacheMethod] = frozenset({"fbcache", "teacache", "magcache"})


@dataclass(frozen=True)
class Optimizations:
    """Every optimization as it is resolved; one at its default changes nothing."""

    compile_mode: CompileMode | None = None  # the denoiser by torch.compile
    attention: AttentionName = "auto"  # auto: what the engine takes by itself
    quantization: Quantization | None = None  # of the linear layers in the denoiser's blocks
    layerwise_fp8: bool = False  # the denoiser's weights stored as float8, computed in the run's dtype
    fp8_t5_encoder: bool = False  # the same for the T5 text encoder
    offload: Offload | None = None  # weights in host memory, moved to the GPU when they are needed
    attention_slicing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    vae_dtype: VaeDtype = "own"  # own: the run's dtype, and what the pipeline makes of it while it decodes
    cache: CacheMethod | None = None
    cache_threshold: float | None = None
    scheduler: SchedulerName = "own"
    cuda_graphs: bool = False  # kernels of every scale recorded once and replayed
    compile_vae: bool = False  # the VAE's decoder by torch.compile
    compile_text_encoders: bool = False
    inductor_mode: InductorMode = "default"  # of everything that is compiled
    inductor_coordinate_descent: bool = False  # kernels' settings tuned by measuring, one at a time
    inductor_conv_1x1_as_mm: bool = False  # convolutions of one pixel as matrix products
    inductor_epilogue_fusion: bool = True  # what follows a matrix product done within its kernel
    compile_fullgraph: bool = False  # a graph break in the denoiser is an error
    compile_static_shapes: bool = False  # no code for shapes that vary
    compile_cache: bool = True  # compiled code is kept for later runs
    fuse_qkv: bool = False  # one matrix product for queries, keys and values
    vae_channels_last: bool = False  # weights and activations of the VAE as (n, h, w, channels)
    unet_channels_last: bool = False
    cudnn_benchmark: bool = False  # cuDNN times its algorithms for each shape and takes the fastest
    tf32: bool = False  # float32 products on tensor cores, with 10 bits of mantissa

    @property
    def in_use(self) -> dict[str, Optimization]:
        """Field name -> record of every optimization that is not at its default."""
        off = Optimizations()
        return {
            name: record
            for name, record in OPTIMIZATIONS.items()
            if getattr(self, name) != getattr(off, name)
        }

    @property
    def options(self) -> dict[str, Any]:
        """Options of the command line by name, with the values that resolve to these optimizations again."""
        found: dict[str, Any] = {"cache_threshold": self.cache_threshold}
        for name, record in OPTIMIZATIONS.items():
            found |= record.options_for(getattr(self, name))
        return found

    @property
    def memory_options(self) -> tuple[str, ...]:
        """Options in use that make weights or activations smaller than the memory estimate assumes."""
        return tuple(
            f"--{record.option_for(getattr(self, name))}"
            for name, record in self.in_use.items()
            if record.changes_memory
        )

    @property
    def lossy(self) -> list[str]:
        """Differences from the exact run's images beyond rounding, in a few words each."""
        found = [record.lossy(self) for record in self.in_use.values() if record.lossy is not None]
        return [words for words in found if words is not None]

    @property
    def compiled_parts(self) -> tuple[str, ...]:
        """Options in use that have something compiled."""
        names = ("compile_mode", "compile_vae", "compile_text_encoders")
        return tuple(f"--{self.in_use[name].option}" for name in names if name in self.in_use)

    @property
    def computes_in(self) -> str | None:
        """Type of the denoiser's products where it is not the run's dtype: "float8" or "int8"."""
        found = [record.computes_in.get(getattr(self, name)) for name, record in self.in_use.items()]
        return next((dtype for dtype in found if dtype is not None), None)


@dataclass(frozen=True)
class Remedy:
    """A value that takes less memory, to offer a run that ran out of it."""

    value: Any
    saves: Literal["weights", "vae_decode"]


@dataclass(frozen=True)
class Optimization:
    """An optimization as the command line writes it, and the facts that a run needs of it.

    option: of the command line, without its hyphens; it takes the value, or is a switch.
    value_option: takes the value, where `option` is a switch beside it.
    flags: value -> a switch of its own, instead of one option that takes the value.
    lossy: words for values that change the image by more than rounding, None for the others.
    """

    option: str
    value_option: str | None = None
    flags: Mapping[Any, str] = field(default_factory=dict)
    lossy: Callable[[Optimizations], str | None] | None = None
    changes_memory: bool = False  # makes weights or activations smaller
    hooks_layers: bool = False  # changes the layers that offloading hooks
    tried_on_mps: bool = True
    is_searched: bool = False  # `mlenergy tune` can turn it on: exact, at little cost before the first image
    computes_in: Mapping[str, str] = field(default_factory=dict)  # value -> type of the denoiser's products
    remedy: Remedy | None = None

    def option_for(self, value: Any) -> str:
        """The option that turns a value on."""
        return self.flags.get(value, self.option)

    def options_for(self, value: Any) -> dict[str, Any]:
        """Options by name that give a value."""
        if self.flags:
            return {option: value == of for of, option in self.flags.items()}
        if self.value_option is not None:
            return {self.option: value is not None, self.value_option: value}
        return {self.option: value}


def _cache_words(optimizations: Optimizations) -> str:
    threshold = optimizations.cache_threshold
    return f"cache {optimizations.cache}{'' if threshold is None else f' at {threshold:g}'}"


# By field of Optimizations; cache_threshold belongs to the cache. In the order in which reports name them.
OPTIMIZATIONS: dict[str, Optimization] = {
    "compile_mode": Optimization(
        "use_torch_compile", value_option="compile_mode", hooks_layers=True, tried_on_mps=False
    ),
    "cache": Optimization("cache_method", lossy=_cache_words, hooks_layers=True),
    "quantization": Optimization(
        "quantization",
        lossy=lambda o: f"{o.quantization} denoiser",
        changes_memory=True,
        hooks_layers=True,
        tried_on_mps=False,
        computes_in={"fp8-dynamic": "float8", "int8-dynamic": "int8"},
        remedy=Remedy("int8-weight-only", "weights"),
    ),
    "layerwise_fp8": Optimization(
        "layerwise_fp8",
        lossy=lambda _: "fp8 storage of the denoiser",
        changes_memory=True,
        hooks_layers=True,
        tried_on_mps=False,
    ),
    "fp8_t5_encoder": Optimization(
        "use_fp8_t5_encoder",
        lossy=lambda _: "fp8 storage of the T5 encoder",
        changes_memory=True,
        hooks_layers=True,
        tried_on_mps=False,
    ),
    "attention": Optimization(
        "attention_backend",
        lossy=lambda o: "8-bit attention (sage)" if o.attention == "sage" else None,
        tried_on_mps=False,
    ),
    "offload": Optimization(
        "enable_model_cpu_offload",
        flags={
            "model": "enable_model_cpu_offload",
            "sequential": "enable_sequential_cpu_offload",
            "group": "enable_group_offload",
        },
        changes_memory=True,
        remedy=Remedy("model", "weights"),
    ),
    "attention_slicing": Optimization("attention_slicing", changes_memory=True),
    "vae_slicing": Optimization("vae_slicing", changes_memory=True, remedy=Remedy(True, "vae_decode")),
    "vae_tiling": Optimization(
        "vae_tiling",
        lossy=lambda _: "VAE in tiles",
        changes_memory=True,
        remedy=Remedy(True, "vae_decode"),
    ),
    "vae_dtype": Optimization(
        "vae_dtype",
        lossy=lambda o: None if o.vae_dtype == "float32" else f"VAE in {o.vae_dtype}",
    ),
    "cuda_graphs": Optimization("use_cuda_graphs", hooks_layers=True, tried_on_mps=False),
    "compile_vae": Optimization("compile_vae", hooks_layers=True, tried_on_mps=False),
    "compile_text_encoders": Optimization("compile_text_encoders", hooks_layers=True, tried_on_mps=False),
    "inductor_mode": Optimization("inductor_mode", tried_on_mps=False),
    "inductor_coordinate_descent": Optimization("inductor_coordinate_descent", tried_on_mps=False),
    "inductor_conv_1x1_as_mm": Optimization("inductor_conv_1x1_as_mm", tried_on_mps=False),
    "inductor_epilogue_fusion": Optimization("inductor_epilogue_fusion", tried_on_mps=False),
    "compile_fullgraph": Optimization("compile_fullgraph", tried_on_mps=False),
    "compile_static_shapes": Optimization("compile_static_shapes", tried_on_mps=False),
    "compile_cache": Optimization("compile_cache", tried_on_mps=False),
    "fuse_qkv": Optimization("fuse_qkv", tried_on_mps=False, is_searched=True),
    "vae_channels_last": Optimization("vae_channels_last", tried_on_mps=False, is_searched=True),
    "unet_channels_last": Optimization("unet_channels_last", tried_on_mps=False, is_searched=True),
    "cudnn_benchmark": Optimization("cudnn_benchmark", tried_on_mps=False, is_searched=True),
    "tf32": Optimization("tf32", lossy=lambda _: "float32 products in TF32", tried_on_mps=False),
    "scheduler": Optimization("scheduler", lossy=lambda o: f"scheduler {o.scheduler} instead of the model's"),
}
