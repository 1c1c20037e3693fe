"""Arguments + model + number of processes -> one resolved plan, or one clear error."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal, TypeVar

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.optimizations import Optimizations, has_cache, optimizations_from
from mlenergy.diffusion.config.parallelism import Parallelism, share_out
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.spec import Dtype, EngineName, Mode, ModelSpec, WeightsKind
from mlenergy.diffusion.weights.tiny.folder import is_tiny

__all__ = ["DeviceType", "Parallelism", "Plan", "make_plan", "weights_held"]

DeviceType = Literal["cuda", "mps", "cpu"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Plan:
    """Exactly what a run does: every default resolved, every explicit value kept."""

    spec: ModelSpec
    weights_from: str  # folder, or hub id, that from_pretrained is given
    revision: str | None
    engine: EngineName
    device: DeviceType
    device_name: str  # "NVIDIA H200", or the CPU's model
    parallel: Parallelism
    dtype: Dtype
    batch_size: int  # images an iteration, over all data-parallel groups
    height_px: int
    width_px: int
    steps: int
    guidance_scale: float | None
    negative_prompt: str | None
    max_sequence_length: int | None
    seed: int
    dataset: str
    prompt_column: str | None  # None: the source's default column
    prompt_prefix: str
    warmup_iters: int
    benchmark_iters: int
    save_images: bool
    base_dir: str
    target_ci: float | None = None  # half-width of the 95 % interval over the mean
    max_iters: int = 100  # under target_ci
    energy_gpus: tuple[str, ...] = ()  # empty: those that the ranks use
    power_limit_w: float | None = None
    use_resolution_binning: bool = False  # PixArt, HunyuanDiT: go to the nearest trained size and back
    variant: str | None = None  # weight files' variant, such as fp16
    lora: str | None = None  # LoRA weights: a folder, a file or a hub id
    allow_pickle: bool = False  # load weights that are not safetensors
    trust_remote_code: bool = False
    optimizations: Optimizations = field(default_factory=Optimizations)
    weights: WeightsKind = "pretrained"

    @property
    def has_random_weights(self) -> bool:
        """Whether its images say nothing of quality."""
        return self.weights == "random" or is_tiny(self.spec.model_id)

    @property
    def most_iters(self) -> int:
        """Measured iterations that there may be."""
        return self.benchmark_iters if self.target_ci is None else self.max_iters

    @property
    def tokens(self) -> int:
        """Image tokens of one image in the denoiser."""
        cell_px = self.spec.family.latent_factor * self.spec.family.patch_size
        return (self.height_px // cell_px) * (self.width_px // cell_px)


def weights_held(plan: Plan) -> WeightsKind:
    """What the results call the plan's weights: a tiny model's are random, too."""
    return "random" if plan.has_random_weights else "pretrained"


def make_plan(
    args: BenchmarkArgs, spec: ModelSpec, world_size: int | None, device: DeviceType, device_name: str
) -> Plan:
    """Resolve every default and check everything that can be checked before a model loads.

    Args:
        args: the command line; None fields are filled from the model.
        spec: the model.
        world_size: processes that were started, or None for a dry run, where the degrees decide.
        device: where it runs.
        device_name: the device's name, part of the result folder's name.

    Raises:
        UserError: the first thing that cannot work, with the arithmetic and what would fit.
    """
    from mlenergy.diffusion.config.checks import check_plan

    work = args.workload
    parallel = _parallelism(args, world_size, spec.heads)
    optimizations = optimizations_from(args, spec.family)
    plan = Plan(
        spec=spec,
        weights_from=spec.model_id,
        revision=work.revision,
        engine=_choose_engine(args.engine, spec, parallel, device, optimizations),
        device=device,
        device_name=device_name,
        parallel=parallel,
        dtype=_or(work.dtype, spec.default_dtype),
        batch_size=work.batch_size,
        height_px=_or(work.height, spec.default_height_px),
        width_px=_or(work.width, spec.default_width_px),
        steps=_or(work.inference_steps, spec.default_steps),
        guidance_scale=_or(work.guidance_scale, spec.default_guidance_scale),
        negative_prompt=work.negative_prompt,
        max_sequence_length=_or(work.max_sequence_length, spec.default_max_sequence_length),
        seed=work.seed,
        dataset=work.dataset,
        prompt_column=work.prompt_column,
        prompt_prefix=work.prompt_prefix,
        warmup_iters=args.warmup_iters,
        benchmark_iters=args.benchmark_iters,
        save_images=args.save_images,
        base_dir=work.base_dir,
        target_ci=args.target_ci,
        max_iters=args.max_iters,
        energy_gpus=args.energy_gpus,
        power_limit_w=args.power_limit_w,
        use_resolution_binning=work.use_resolution_binning,
        variant=work.variant,
        lora=work.lora,
        allow_pickle=work.allow_pickle,
        trust_remote_code=work.trust_remote_code,
        optimizations=optimizations,
        weights=work.weights,
    )
    check_plan(plan)
    return plan


def _parallelism(args: BenchmarkArgs, world_size: int | None, heads: int | None) -> Parallelism:
    others = {
        "data_parallel_degree": args.data_parallel_degree,
        "use_cfg_parallel": 2 if args.use_cfg_parallel else 1,
        "pipefusion_parallel_degree": args.pipefusion_parallel_degree,
        "tensor_parallel_degree": args.tensor_parallel_degree,
    }
    ulysses, ring = share_out(args.ulysses_degree, args.ring_degree, others, world_size, heads)
    return Parallelism(
        data=args.data_parallel_degree,
        cfg=others["use_cfg_parallel"],
        pipefusion=args.pipefusion_parallel_degree,
        ring=ring,
        ulysses=ulysses,
        tensor=args.tensor_parallel_degree,
        num_pipeline_patch=args.num_pipeline_patch,
        pipefusion_warmup_steps=args.warmup_steps,
        parallel_vae=args.use_parallel_vae,
    )


def _or(explicit: _T | None, default: _T) -> _T:
    return default if explicit is None else explicit


def _choose_engine(
    wanted: str, spec: ModelSpec, parallel: Parallelism, device: DeviceType, optimizations: Optimizations
) -> EngineName:
    offered = spec.family.modes
    if wanted == "diffusers" or wanted == "xdit":
        if wanted not in offered:
            raise UserError(
                f"--engine {wanted} has no {spec.family.name} pipeline; use --engine {min(offered)}"
            )
        if wanted == "xdit" and find_spec("xfuser") is None:
            raise UserError("--engine xdit needs the package xfuser; install it, or use --engine diffusers")
        return wanted
    able = [engine for engine in _installed(offered, device) if offered[engine].issuperset(parallel.modes)]
    able = [engine for engine in able if has_cache(engine, spec.family, optimizations)] or able
    return (able or [*_installed(offered, device)])[0]


def _installed(offered: dict[EngineName, frozenset[Mode]], device: DeviceType) -> list[EngineName]:
    """Engines of a family that can run here, the preferred one first."""
    xdit_runs = "xdit" in offered and device != "mps" and find_spec("xfuser") is not None
    return ["xdit", "diffusers"] if xdit_runs else ["diffusers"]
