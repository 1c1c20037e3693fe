"""The options of a run, as frozen dataclasses for the parser. Explicit values survive: unset is None."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tyro

from mlenergy.diffusion.config.command_line import CommandLine
from mlenergy.diffusion.config.optimizations import (
    AttentionName,
    CompileMode,
    InductorMode,
    Quantization,
    SchedulerName,
    VaeDtype,
)
from mlenergy.diffusion.config.option import YEAR_S, Range
from mlenergy.diffusion.config.parser import option_group, parse, read
from mlenergy.diffusion.config.presets import PresetName
from mlenergy.diffusion.config.workloads import Workload
from mlenergy.diffusion.models.spec import CacheMethod

# Beyond these a number is a slip of the keyboard: it would fail much later, or never end.
MOST_ITERATIONS = 1_000_000
ITERATIONS = Range(least=1, most=MOST_ITERATIONS)
PROCESSES = Range(least=1, most=65_536)
SHARE = Range(above=0, below=1, example="0.01 for 1 %")
SECONDS = Range(least=0, most=YEAR_S)
WATTS = Range(above=0, most=100_000)
GIBIBYTES = Range(above=0, most=1_000_000)
POSITIVE = Range(above=0, most=1e15)


@option_group("general")
@dataclass(frozen=True, kw_only=True)
class GeneralOptions:
    """Engine and device of the run, and the way it starts."""

    engine: Literal["auto", "xdit", "diffusers", "autoregressive"] = "auto"
    """What runs the model. auto: xdit, or diffusers if xdit is missing or lacks a requested mode; for models
    that predict scales (VAR) this program's own engine, autoregressive."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Kind of device. auto: NVIDIA GPUs if torch can use them, else Apple's GPU, else the CPU."""
    preset: PresetName | None = None
    """Options that are known to serve an aim for this model, GPU and number of GPUs: those of them that the
    run can take; mlenergy plan shows them with their evidence. Options that are given win. All but
    fastest-lossless may be lossy. Default: none."""
    hang_timeout_s: Annotated[float, SECONDS] = 1800.0
    """Seconds without progress (an iteration, a stage) after which the run ends, with the stacks of all ranks
    in the result folder; 0: no limit."""
    dry_run: bool = False
    """Print what would run and stop: nothing is loaded, started or written."""
    debug: bool = False
    """Show Python tracebacks and the libraries' output instead of one-line errors and the log file."""


@option_group("parallelism")
@dataclass(frozen=True, kw_only=True)
class ParallelismOptions:
    """Ways in which processes share the work. The degrees multiply to the number of processes."""

    ulysses_degree: Annotated[int | None, PROCESSES] = None
    """Processes that share an image by attention heads (Ulysses). Default: what the other degrees leave."""
    ring_degree: Annotated[int | None, PROCESSES] = None
    """Processes that share an image by passing keys and values around (ring). Default: 1, or what Ulysses
    cannot take."""
    use_cfg_parallel: bool = False
    """Give the two halves of classifier-free guidance to two processes (or groups of processes)."""
    data_parallel_degree: Annotated[int, PROCESSES] = 1
    """Groups of processes that each generate their own share of the batch."""
    pipefusion_parallel_degree: Annotated[int, PROCESSES] = 1
    """Stages of PipeFusion: each holds a part of the denoiser's layers. Approximate: after its synchronous
    steps it works with activations of the step before."""
    num_pipeline_patch: Annotated[int | None, Range(least=1, most=65_536)] = None
    """Patches that PipeFusion cuts the image into. Default: as many as its stages."""
    warmup_steps: Annotated[int, Range(least=0, most=10_000)] = 1
    """PipeFusion's synchronous steps at the start of each image."""
    tensor_parallel_degree: Annotated[int, PROCESSES] = 1
    """Processes that split the denoiser's matrices."""
    use_parallel_vae: bool = False
    """Decode each image on all of its processes, a part each."""


@option_group("measuring")
@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """Length of the measuring, and the reading of energy."""

    warmup_iters: Annotated[int, Range(least=0, most=MOST_ITERATIONS)] = 1
    """Iterations before measuring, with exactly the measured shape."""
    benchmark_iters: Annotated[int, ITERATIONS] = 4
    """Measured iterations: exactly this many, unless --target_ci is given."""
    target_ci: Annotated[float | None, SHARE] = None
    """Continue past --benchmark_iters until the 95 % interval's half-width is within this share of the mean
    (0.01: 1 %), or --max_iters is reached. Default: off."""
    max_iters: Annotated[int, ITERATIONS] = 100
    """The most iterations that --target_ci measures."""
    energy_gpus: Annotated[tuple[str, ...], tyro.conf.arg(metavar="GPU [GPU ...]")] = ()
    """GPUs whose energy is read, as nvidia-smi indices, UUIDs, or all. Default: those that the ranks use."""
    count_flops: bool = True
    """Count the FLOPs of a model that was never counted, once, before measuring; off: they stay unknown."""
    require_energy: bool = False
    """Refuse to run, before the model loads, if GPU energy cannot be read."""
    sample_period_s: Annotated[float, Range(least=0.001, most=3600.0)] = 0.1
    """Seconds between two samples of power, temperature, clock and throttle reasons."""
    idle_s: Annotated[float, SECONDS] = 2.0
    """Seconds for which the GPUs' idle power is sampled before the model loads; 0: not at all."""
    power_limit_w: Annotated[float | None, WATTS] = None
    """Hold every GPU of the run at this power limit, and restore it however the run ends. Needs root.
    Default: the limit is left as it is."""


@option_group("compilation")
@dataclass(frozen=True, kw_only=True)
class CompilationOptions:
    """Compilation by torch.compile, and its settings."""

    use_torch_compile: bool = False
    """Compile the denoiser by torch.compile. The time that compiling takes is reported separately."""
    compile_mode: CompileMode | None = None
    """whole: the denoiser at once; regional: its repeated blocks, compiled once. Default: regional, or
    whole for UNets."""
    compile_vae: bool = False
    """Compile the VAE's decoder by torch.compile."""
    compile_text_encoders: bool = False
    """Compile the text encoders by torch.compile."""
    inductor_mode: InductorMode = "default"
    """Effort of the compiler, in all that is compiled. max-autotune-no-cudagraphs: time several kernels for
    each product and take the fastest, which compiles for minutes; reduce-overhead: record the whole
    denoiser's kernels as CUDA graphs and replay them; max-autotune: both."""
    inductor_coordinate_descent: bool = False
    """Let the compiler tune each kernel's settings by timing them. The autotuning modes do it anyway."""
    inductor_conv_1x1_as_mm: bool = False
    """Let the compiler treat 1x1 convolutions as matrix products."""
    inductor_epilogue_fusion: bool = True
    """Leave what follows a matrix product out of its kernel. By default the compiler may fuse them."""
    compile_fullgraph: bool = False
    """End with an error where compiling the denoiser (or its blocks) breaks into several graphs."""
    compile_static_shapes: bool = False
    """Compile for each shape anew; by default a shape that changes gets code for any shape."""
    compile_cache: bool = True
    """Compile everything anew, for a compile time that no earlier run has shortened. By default compiled code
    is kept in ~/.cache/mlenergy/compiled for later runs."""


@option_group("optimization")
@dataclass(frozen=True, kw_only=True)
class OptimizationOptions:
    """Options that make a run faster or smaller. Lossy ones change the image by more than rounding."""

    fuse_qkv: bool = False
    """Compute the denoiser's queries, keys and values by one matrix product a layer instead of three."""
    vae_channels_last: bool = False
    """Hold the VAE with channels last in memory, the layout of tensor cores' convolutions."""
    unet_channels_last: bool = False
    """The same for the UNet. For UNets."""
    cudnn_benchmark: bool = False
    """Let cuDNN time its convolution algorithms for each shape, in the first call, and take the fastest."""
    tf32: bool = False
    """Compute float32 products and convolutions on tensor cores, with TF32's 10 bits of mantissa. Lossy."""
    use_cuda_graphs: bool = False
    """Record the kernels of every scale once and replay them, which spares the host their launches. For
    models that predict scales, on NVIDIA GPUs."""
    attention_backend: AttentionName = "auto"
    """The denoiser's attention: sdpa (torch chooses its kernel), math, flash, efficient or cudnn (torch's own
    kernels), fa2, fa3, fa4 or sage (separate packages), fa2-hub, fa3-hub or fa4-hub (built kernels, which the
    package kernels fetches from the hub). auto: the engine's own."""
    quantization: Quantization | None = None
    """Weights of the denoiser's blocks in 8 bits by torchao; dynamic also computes in 8 bits. Lossy.
    Default: off."""
    layerwise_fp8: bool = False
    """Store the denoiser's weights as 8-bit floats and cast each layer's while it runs. Lossy."""
    use_fp8_t5_encoder: bool = False
    """Store the T5 text encoder's weights as 8-bit floats and cast each layer's while it runs. Lossy."""
    enable_model_cpu_offload: bool = False
    """Keep weights in host memory and move whole components to the GPU as needed."""
    enable_sequential_cpu_offload: bool = False
    """Keep weights in host memory and move layers to the GPU as needed: least memory, slowest."""
    enable_group_offload: bool = False
    """Like sequential offload, with the next layer copied while one runs."""
    attention_slicing: bool = False
    """Compute attention a few heads at a time. For UNets."""
    vae_slicing: bool = False
    """Decode the images of a batch one by one."""
    vae_tiling: bool = False
    """Decode large images in tiles that are blended. Lossy."""
    vae_dtype: VaeDtype = "own"
    """Type in which the VAE is held and decodes. own: the run's, where SDXL's pipeline in float16 casts it to
    float32 and back for every batch. The 16-bit types are lossy; SDXL's own VAE overflows in float16."""
    use_teacache: bool = False
    """The same as --cache_method teacache."""
    use_fbcache: bool = False
    """The same as --cache_method fbcache."""
    cache_method: CacheMethod | None = None
    """Reuse results of earlier steps. Lossy. fbcache and magcache (FLUX) skip steps, as does teacache (FLUX,
    xdit); taylorseer, pab and fastercache skip attention. Default: off."""
    cache_threshold: Annotated[float | None, Range(least=0, most=1000)] = None
    """Change between steps below which fbcache, teacache or magcache skips one: higher is faster and further
    from the exact image. Default: 0.12; magcache 0.06."""
    scheduler: SchedulerName = "own"
    """own: the model's scheduler; or one of the others, if the model's family allows it."""


@option_group("output")
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Files that are written, and rules for what counts as a result. --workload.base_dir names the folder."""

    save_images: bool = True
    """Write no PNG files. By default the measured images are written after the last measured window."""
    save_latents: bool = False
    """Write the final latents beside the outputs, as the decoder takes them. Default: off."""
    overwrite_results: bool = False
    """Measure again even if the result folder already holds a complete result."""
    allow_no_effect: bool = False
    """Accept a result although an optimization had no effect, such as a cache that never skipped."""
    reference: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Result folder of an exact run with the same prompts and seeds, for PSNR and SSIM of each image.
    Default: no comparison."""


@dataclass(frozen=True)
class BenchmarkArgs(
    OutputOptions,
    OptimizationOptions,
    CompilationOptions,
    MeasuringOptions,
    ParallelismOptions,
    GeneralOptions,
):
    """Measure seconds, joules and gigabytes per generated image."""

    workload: Annotated[Workload, tyro.conf.arg(help="What is generated.")]

    # Names of options that a command line writes out, even at their defaults; only kept beside a preset.
    given: ClassVar[frozenset[str]] = frozenset()


_Args = TypeVar("_Args", bound=BenchmarkArgs)


def _remember_given(args: _Args, argv: Sequence[str]) -> _Args:
    """Keep what a command line writes out, so that no preset changes it."""
    if args.preset is None:
        return args
    command_line = CommandLine.of(type(args))  # type: ignore[arg-type]  # a class is hashable
    options = [word.option for word in command_line.read(argv)]
    return _with_given(args, frozenset(option.name for option in options if option is not None))


def _with_given(args: _Args, names: frozenset[str]) -> _Args:
    object.__setattr__(args, "given", names)  # no field: it is nothing that a command line could hold
    return args


def changed(args: _Args, **changes: Any) -> _Args:
    """The same options with some that no preset may change any more."""
    return _with_given(replace(args, **changes), args.given | frozenset(changes))


def parse_args(argv: Sequence[str], prog: str = "python -m mlenergy.diffusion.benchmark") -> BenchmarkArgs:
    """Parse a command line. The workload's name may stand before, between or after the options.

    Raises:
        UserError: one line, where the command line cannot be understood or names what is not available.
        SystemExit: after --help.
    """
    return _remember_given(parse(BenchmarkArgs, argv, prog), argv)


def read_args(argv: Sequence[str], prog: str = "mlenergy run") -> BenchmarkArgs:
    """As `parse_args`, but a thousand times as fast: for command lines that a sweep has made.

    Raises:
        UserError: one line, where the command line cannot be understood or names what is not available.
    """
    return _remember_given(read(BenchmarkArgs, argv, prog), argv)


@option_group("plan")
@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Assumptions of the prediction, and the form of the output."""

    json: bool = False
    """Print JSON instead of a report."""
    processes: Annotated[int | None, PROCESSES] = None
    """Processes for which other ways to share out the work are listed. Default: what the degrees make."""
    gpu_memory_gib: Annotated[float | None, GIBIBYTES] = None
    """Memory of one GPU in GiB, to say whether the run fits. Default: that of --gpu, else not compared."""
    gpu: str | None = None
    """GPU to forecast seconds and joules for, such as H100. Default: none."""
    calibration: Path | None = None
    """Constants of the forecast, from mlenergy calibrate. Default: those fitted to published runs."""
    gpus: Annotated[str | None, tyro.conf.arg(metavar="GPU,...")] = None
    """GPUs to compare for --images_per_day, separated by commas, such as H100,B200,L40S. Default: none."""
    images_per_day: Annotated[float | None, POSITIVE] = None
    """With --gpus: images to be made in a day; videos, if the model makes videos. Default: none."""
    max_latency_s: Annotated[float | None, POSITIVE] = None
    """With --gpus: seconds that a batch may take at most. Default: any."""
    gpu_hour: Annotated[tuple[str, ...], tyro.conf.arg(metavar="GPU=PRICE ...")] = ()
    """With --gpus: prices of an hour of a GPU, such as H100=2.5. Default: none."""
    price_kwh: Annotated[float | None, POSITIVE] = None
    """With --gpus: price of a kWh. Default: none."""


@dataclass(frozen=True)
class PlanArgs(BenchmarkArgs, PlanOptions):
    """Print what a run would do and need, and other ways to share out its work. Nothing is started."""


def parse_plan_args(argv: Sequence[str], prog: str) -> PlanArgs:
    """Parse the command line of `mlenergy plan`: its own options beside a run's.

    Raises:
        UserError: one line, where the command line cannot be understood.
        SystemExit: after --help.
    """
    return _remember_given(parse(PlanArgs, argv, prog), argv)


@option_group()
@dataclass(frozen=True)
class ModelsArgs:
    """List the models with their defaults and parallel modes."""

    json: bool = False
    """Print JSON instead of a table."""


@option_group()
@dataclass(frozen=True)
class DoctorArgs:
    """Check this machine: versions, GPUs, NCCL and gloo, energy counters, hub token and cache.

    With results: check that each is whole and as its run wrote it. 0: all are. 1: some are not.
    """

    results: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Result folders, or folders that hold some."""
