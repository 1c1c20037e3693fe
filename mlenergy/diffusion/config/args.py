"""The command line, as frozen dataclasses for tyro. Explicit values survive: unset is None."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from mlenergy.diffusion.config.optimizations import (
    AttentionName,
    CompileMode,
    Quantization,
    SchedulerName,
)
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.spec import CacheMethod

Workload = (
    Annotated[TextToImage, tyro.conf.subcommand("text-to-image")]
    | Annotated[TextToImage, tyro.conf.subcommand("t2i", description="Short for text-to-image.")]
)


@dataclass(frozen=True)
class BenchmarkArgs:
    """Measure seconds, joules and gigabytes per generated image.

    Start it with torchrun, one process per GPU (the degrees multiply to the number of processes),
    or plainly with python for one process.
    """

    workload: Workload
    engine: Literal["auto", "xdit", "diffusers"] = "auto"
    """Who runs the model. auto: xdit, or diffusers where xdit is missing or lacks the asked-for modes."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where it runs. auto: the NVIDIA GPUs where torch can use them, else Apple's, else the CPU."""
    ulysses_degree: int | None = None
    """Processes that share an image by attention heads (Ulysses). Default: what the others leave."""
    ring_degree: int | None = None
    """Processes that share an image by passing keys and values around (ring). Default: 1, or what
    Ulysses cannot take."""
    use_cfg_parallel: bool = False
    """Give the two halves of classifier-free guidance to two processes (groups of processes)."""
    data_parallel_degree: int = 1
    """Groups of processes that each make their own share of the batch."""
    pipefusion_parallel_degree: int = 1
    """Stages of PipeFusion: each holds a part of the denoiser's layers. Approximate: after its
    synchronous steps it works with activations of the step before."""
    num_pipeline_patch: int | None = None
    """Patches that PipeFusion cuts the image into. Default: as many as its stages."""
    warmup_steps: int = 1
    """PipeFusion's synchronous steps at the start of each image."""
    tensor_parallel_degree: int = 1
    """Processes that split the denoiser's matrices."""
    use_parallel_vae: bool = False
    """Decode each image on all of its processes, a part each."""
    warmup_iters: int = 1
    """Iterations before measuring, with exactly the measured shape."""
    benchmark_iters: int = 4
    """Measured iterations: exactly as many as asked for."""
    target_ci: float | None = None
    """Go on past benchmark_iters until the 95 % interval's half-width is within this share of the mean
    (0.01: 1 %), or max_iters is reached."""
    max_iters: int = 100
    """Most measured iterations under target_ci."""
    energy_gpus: tuple[str, ...] = ()
    """GPUs whose energy is read instead of those that the ranks use: nvidia-smi's indices, UUIDs, or all."""
    require_energy: bool = False
    """Refuse to run, before the model loads, where GPU energy cannot be read."""
    sample_period_s: float = 0.1
    """Period of the samples of power, temperature, clock and event reasons."""
    idle_s: float = 2.0
    """How long the GPUs' idle power is sampled before the model loads; 0: not at all."""
    power_limit_w: float | None = None
    """Hold every GPU of the run at this power limit, and restore it however the run ends. Needs root."""
    save_images: bool = True
    """Write the measured images as PNG files, after the last measured window has closed."""
    overwrite_results: bool = False
    """Measure again where the result folder already holds a complete result."""
    hang_timeout_s: float = 1800.0
    """End the run, with the stacks of all ranks in the result folder, when no iteration ends and no
    stage begins for so many seconds; 0: wait for ever."""
    dry_run: bool = False
    """Print the resolved plan and stop: nothing is loaded, started or written."""
    debug: bool = False
    """Show Python tracebacks and the libraries' output instead of one-line errors and the log file."""
    use_torch_compile: bool = False
    """Compile the denoiser by torch.compile. What compiling takes is told apart."""
    compile_mode: CompileMode | None = None
    """whole: the denoiser at once; regional: its repeated blocks, which compiles them once. Default:
    regional, for UNets whole."""
    attention_backend: AttentionName = "auto"
    """The denoiser's attention: sdpa (torch chooses its kernel), math, flash, efficient or cudnn (kernels
    that torch brings), fa2, fa3 or sage (packages). auto: what the engine takes."""
    quantization: Quantization | None = None
    """Weights of the denoiser's blocks in 8 bits by torchao; dynamic also computes in 8 bits. Lossy."""
    layerwise_fp8: bool = False
    """Store the denoiser's weights as 8-bit floats and cast each layer's while it runs. Lossy."""
    use_fp8_t5_encoder: bool = False
    """Store the T5 text encoder's weights as 8-bit floats and cast each layer's while it runs. Lossy."""
    enable_model_cpu_offload: bool = False
    """Keep weights in host memory and move whole components to the GPU as needed."""
    enable_sequential_cpu_offload: bool = False
    """Keep weights in host memory and move layers to the GPU as needed: least memory, slowest."""
    enable_group_offload: bool = False
    """As sequential, with the next layer copied while one runs."""
    attention_slicing: bool = False
    """Attend a few heads at a time. For UNets."""
    vae_slicing: bool = False
    """Decode the images of a batch one by one."""
    vae_tiling: bool = False
    """Decode large images in tiles that are blended. Lossy."""
    use_teacache: bool = False
    """The same as --cache_method teacache."""
    use_fbcache: bool = False
    """The same as --cache_method fbcache."""
    cache_method: CacheMethod | None = None
    """Reuse what earlier steps computed. Lossy. fbcache and magcache (FLUX) skip steps, teacache (FLUX, xdit)
    too; taylorseer, pab and fastercache skip attention."""
    cache_threshold: float | None = None
    """Change between steps below which fbcache, teacache or magcache skips one: higher is faster and
    further from the exact image. Default: 0.12; magcache 0.06."""
    scheduler: SchedulerName = "own"
    """How steps are taken: the model's own scheduler, or one of the others where the family allows it."""
    allow_no_effect: bool = False
    """Keep a result although a optimization did nothing, such as a cache that never skipped."""
    reference: str | None = None
    """Result folder of an exact run with the same prompts and seeds, for PSNR and SSIM of each image."""


def parse_args(argv: Sequence[str], prog: str = "python -m mlenergy.diffusion.benchmark") -> BenchmarkArgs:
    """Parse a command line.

    Options of the run may stand before or after the workload's name; hyphens and underscores are the same.

    Raises:
        UserError: one line, where the command line cannot be understood or names what is not available.
        SystemExit: after --help.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            args = tyro.cli(
                BenchmarkArgs, args=list(argv), prog=prog, config=(tyro.conf.CascadeSubcommandArgs,)
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_one_line(complaint.getvalue(), prog)) from None
    if args.sample_period_s <= 0 or args.idle_s < 0 or args.hang_timeout_s < 0:
        raise UserError("--sample_period_s is above 0, --idle_s and --hang_timeout_s are 0 or above")
    return args


def _one_line(box: str, prog: str) -> str:
    """What tyro draws as a box, as one sentence: the complaint without the help text below it."""
    lines = [line.strip("╭╮╰╯│─ \t") for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    text = re.split(r"(?:For full helptext|Argument helptext|Perhaps you meant)", text)[0]
    missing = re.search(r"Missing from .*?:((?: --\S+).*)", text)
    if missing:
        required = re.findall(r"--[\w.-]+(?= [A-Z{])", missing[1])
        text = f"required: {', '.join(required)}"
    return f"{text.strip(' ;.')}; see {prog} --help"
