"""Every optimization with every engine, family and parallel mode on CPU processes, as data.

A set-up either acts on every rank or is refused by its plan; test_every_mode.py holds both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from optimization_batches import TILED_SIZES, words_of

from mlenergy.diffusion.config.args import read_args
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.models.resolve import resolve_model

MODELS = (
    *("tiny/flux", "tiny/sd3", "tiny/sd3.5", "tiny/pixart-alpha", "tiny/hunyuandit"),
    *("tiny/sdxl", "tiny/sd1.5"),
)
VIDEOS = ("tiny/wan2.2", "tiny/hunyuanvideo", "tiny/cogvideox", "tiny/ltx")
DEGREES = {
    "ulysses": "--ulysses_degree 2",
    "ring": "--ring_degree 2",
    "cfg": "--use_cfg_parallel",
    "data": "--data_parallel_degree 2",
    "pipefusion": "--pipefusion_parallel_degree 2",
    "tensor": "--tensor_parallel_degree 2",
}
ATTENTION = {
    name: f"--attention_backend {name}"
    for name in (
        *("sdpa", "math", "flash", "efficient", "cudnn", "fa2", "fa3", "fa4"),
        *("fa2-hub", "fa3-hub", "fa4-hub", "sage"),
    )
}
OTHERS = {
    "cache fbcache": "--use_fbcache --cache_threshold 0.9",
    "cache teacache": "--use_teacache --cache_threshold 0.9",
    "cache magcache": "--cache_method magcache --cache_threshold 0.9",
    "cache taylorseer": "--cache_method taylorseer",
    "cache pab": "--cache_method pab",
    "cache fastercache": "--cache_method fastercache",
    "quantization": "--quantization int8-weight-only",
    "layerwise_fp8": "--layerwise_fp8",
    "fp8_t5_encoder": "--use_fp8_t5_encoder",
    "offload": "--enable_model_cpu_offload",
    "attention_slicing": "--attention_slicing",
    "vae_slicing": "--vae_slicing",
    "vae_tiling": "--vae_tiling",
    "vae_dtype": "--vae_dtype bfloat16",
    "scheduler ddim": "--scheduler ddim",
    "scheduler dpmsolver++": "--scheduler dpmsolver++",
    "scheduler unipc": "--scheduler unipc",
    "scheduler euler": "--scheduler euler",
    "compile": "--use_torch_compile",
    "compile_vae": "--compile_vae",
    "compile_text_encoders": "--compile_text_encoders",
    "fuse_qkv": "--fuse_qkv",
    "vae_channels_last": "--vae_channels_last",
    "unet_channels_last": "--unet_channels_last",
    "cudnn_benchmark": "--cudnn_benchmark",
    "tf32": "--tf32",
}


@dataclass(frozen=True)
class SetUp:
    """One optimization on two processes."""

    optimization: str
    model: str
    engine: str
    mode: str

    @property
    def name(self) -> str:
        """Also the name of its test."""
        return f"{self.optimization}, {self.model.removeprefix('tiny/')}, {self.engine}, {self.mode}"

    @property
    def batch_size(self) -> int:
        """One video where a rank's attention would see the padding of other rows."""
        unmasked = resolve_model(self.model).family.unmasked_modes.get(self.engine, frozenset())
        return 1 if self.mode in unmasked and self.model in VIDEOS else 4

    def plan(self) -> Plan:
        """The plan; UserError where it is refused."""
        steps = "8" if self.optimization.startswith("cache") else "2"
        options = {**ATTENTION, **OTHERS}[self.optimization]
        words = [
            *("--engine", self.engine, "--workload.inference_steps", steps, "--workload.dtype", "float32"),
            *("--workload.batch_size", str(self.batch_size), *DEGREES[self.mode].split(), *options.split()),
        ]
        if self.model in TILED_SIZES:
            height, width = TILED_SIZES[self.model]
            words += ["--workload.height", height, "--workload.width", width]
        args = read_args(words_of(self.model, words))
        return make_plan(args, resolve_model(self.model), 2, "cpu", "a device")


def set_ups(optimizations: dict[str, str], models: tuple[str, ...] = MODELS) -> Iterator[SetUp]:
    """Every combination of these optimizations that a family has pipelines and modes for."""
    for model in models:
        modes = resolve_model(model).family.modes
        for engine in modes:
            for mode in DEGREES:
                if mode in modes[engine]:
                    yield from (SetUp(name, model, engine, mode) for name in optimizations)
