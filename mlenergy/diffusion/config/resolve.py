"""From a command line to a checked plan, for every way in: the benchmark, `mlenergy plan`, `mlenergy run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from mlenergy.diffusion.config.args import BenchmarkArgs, parse_args
from mlenergy.diffusion.config.checks import check_plan
from mlenergy.diffusion.config.dtype import default_dtype
from mlenergy.diffusion.config.expand_preset import with_preset
from mlenergy.diffusion.config.optimizations import (
    DEFAULT_THRESHOLDS,
    OPTIMIZATIONS,
    CompileMode,
    Optimization,
    Optimizations,
)
from mlenergy.diffusion.config.parallelism import MODES, Parallelism, share_out
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.workloads import TextToImage, TextToVideo
from mlenergy.diffusion.environment.device import DeviceType, detect_device
from mlenergy.diffusion.environment.platforms import reason_against_xdit
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.models.spec import ENGINES, CacheMethod, EngineName, Family, Mode, ModelSpec

_T = TypeVar("_T")


def plan_from(argv: Sequence[str], world_size: int | None, prog: str) -> tuple[BenchmarkArgs, Plan]:
    """Parse, look at the device, resolve the model, plan. Nothing loads and torch is not imported.

    Args:
        argv: the command line without the program's name.
        world_size: processes that were started; None where none were, so that the degrees decide.
        prog: what the user typed before the options, for error messages.

    Raises:
        UserError: one line that says what to do.
    """
    args = parse_args(argv, prog)
    return args, plan_of(args, world_size)


def plan_of(args: BenchmarkArgs, world_size: int | None, *, for_gpu: bool = False) -> Plan:
    """Look at the device, resolve the model, plan.

    for_gpu: plan for an NVIDIA GPU, where this machine has none and --device names nothing else.

    Raises:
        UserError: one line that says what to do.
    """
    device, device_name = detect_device(args.device)
    if for_gpu and args.device == "auto" and device != "cuda":
        device, device_name = "cuda", "unknown"
    spec = resolve_model(args.workload.model_id, args.workload.revision)
    return make_plan(args, spec, world_size, device, device_name)


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

    def resolved(options: BenchmarkArgs) -> Plan:
        return _resolved(options, spec, world_size, device, device_name)

    plan = resolved(args) if args.preset is None else with_preset(args, resolved)
    check_plan(plan)
    return plan


def _resolved(
    args: BenchmarkArgs, spec: ModelSpec, world_size: int | None, device: DeviceType, device_name: str
) -> Plan:
    """The plan of options without their preset, not checked."""
    work = args.workload
    parallel = _parallelism(args, world_size, spec.heads)
    optimizations = optimizations_from(args, spec.family)
    dtype = _or(work.dtype, default_dtype(spec, device))
    if optimizations.vae_dtype == dtype and not (dtype == "float16" and spec.family.upcasts_vae):
        optimizations = replace(optimizations, vae_dtype="own")  # the same set-up has one name
    return Plan(
        spec=spec,
        weights_from=spec.model_id,
        revision=work.revision,
        engine=_choose_engine(args.engine, spec, parallel, device, optimizations),
        device=device,
        device_name=device_name,
        parallel=parallel,
        dtype=dtype,
        batch_size=work.batch_size,
        height_px=_or(work.height, spec.default_height_px),
        width_px=_or(work.width, spec.default_width_px),
        steps=_or(work.inference_steps, _default_steps(work, spec)),
        guidance_scale=_or(work.guidance_scale, spec.default_guidance_scale),
        negative_prompt=work.negative_prompt,
        max_sequence_length=_or(work.max_sequence_length, spec.default_max_sequence_length),
        seed=work.seed,
        dataset=_or(work.dataset, spec.default_dataset),
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
        use_resolution_binning=isinstance(work, TextToImage) and work.use_resolution_binning,
        variant=work.variant,
        lora=work.lora,
        allow_pickle=work.allow_pickle,
        trust_remote_code=work.trust_remote_code,
        optimizations=optimizations,
        weights=work.weights,
        prompt_order=work.prompt_order,
        save_latents=args.save_latents,
        **_of_workload(work, spec),
    )


def _of_workload(work: TextToImage | TextToVideo, spec: ModelSpec) -> dict[str, Any]:
    """Fields of a plan that images or videos alone have.

    Raises:
        UserError: the model makes the other of the two.
    """
    if spec.family.makes_video != isinstance(work, TextToVideo):
        made, wanted = ("videos", "text-to-video") if spec.family.makes_video else ("images", "text-to-image")
        raise UserError(f"{spec.model_id} makes {made}; use workload:{wanted}")
    if isinstance(work, TextToVideo):
        return {
            "num_frames": _or(work.num_frames, spec.default_num_frames),
            "fps": _or(work.fps, spec.default_fps),
            "guidance_scale_2": _or(work.guidance_scale_2, spec.default_guidance_scale_2),
            "boundary_ratio": _or(work.boundary_ratio, spec.default_boundary_ratio),
        }
    return {
        "class_ids": work.class_ids or None,
        "top_k": _or(work.top_k, None if spec.next_scale is None else spec.next_scale.top_k),
        "top_p": _or(work.top_p, None if spec.next_scale is None else spec.next_scale.top_p),
    }


def _default_steps(work: TextToImage | TextToVideo, spec: ModelSpec) -> int:
    """The model's steps; of one that predicts scales, as many as an image of that size has."""
    if spec.next_scale is None:
        return spec.default_steps
    size = _or(work.height, spec.default_height_px), _or(work.width, spec.default_width_px)
    return len(spec.next_scale.schedules.get(size, ())) or spec.default_steps


def optimizations_from(args: BenchmarkArgs, family: Family) -> Optimizations:
    """The optimizations that a command line asks for.

    Raises:
        UserError: two options that exclude each other, or one without the other that it belongs to.
    """
    if args.compile_mode is not None and not args.use_torch_compile:
        raise UserError("--compile_mode says how to compile; add --use_torch_compile")
    values = {name: _value(args, record) for name, record in OPTIMIZATIONS.items()}
    if args.use_torch_compile and args.compile_mode is None:
        # A UNet's repeated blocks are a small part of it: blocks alone leave the convolutions as they are.
        default: CompileMode = "whole" if family.denoiser == "unet" else "regional"
        values["compile_mode"] = default
    cache = _one_cache(args)
    if args.cache_threshold is not None and cache not in DEFAULT_THRESHOLDS:
        raise UserError(
            f"--cache_threshold {args.cache_threshold:g} belongs to one of the caches "
            f"{', '.join(DEFAULT_THRESHOLDS)}; choose one by --cache_method, or leave it out"
        )
    default_threshold = DEFAULT_THRESHOLDS.get(cache) if cache else None
    values |= {"cache": cache, "cache_threshold": _or(args.cache_threshold, default_threshold)}
    return Optimizations(**values)


def _value(args: BenchmarkArgs, optimization: Optimization) -> Any:
    """The value that the options of one optimization ask for."""
    if not optimization.flags:
        return getattr(args, optimization.value_option or optimization.option)
    asked = {flag: value for value, flag in optimization.flags.items() if getattr(args, flag)}
    if len(asked) > 1:
        named = " and ".join(f"--{flag}" for flag in asked)
        raise UserError(f"{named} exclude each other; choose one of them")
    return next(iter(asked.values()), None)


def _one_cache(args: BenchmarkArgs) -> CacheMethod | None:
    """The cache that --cache_method or one of its short forms names."""
    asked: dict[str, CacheMethod] = {}
    if args.use_teacache:
        asked["--use_teacache"] = "teacache"
    if args.use_fbcache:
        asked["--use_fbcache"] = "fbcache"
    if args.cache_method is not None:
        asked[f"--cache_method {args.cache_method}"] = args.cache_method
    if len(set(asked.values())) > 1:
        raise UserError(f"{' and '.join(asked)}: a run has one cache; choose one of them")
    return next(iter(asked.values()), None)


def _parallelism(args: BenchmarkArgs, world_size: int | None, heads: int | None) -> Parallelism:
    degrees: dict[Mode, int] = {
        "data": args.data_parallel_degree,
        "cfg": 2 if args.use_cfg_parallel else 1,
        "pipefusion": args.pipefusion_parallel_degree,
        "tensor": args.tensor_parallel_degree,
    }
    others = {MODES[mode].option: degree for mode, degree in degrees.items()}
    ulysses, ring = share_out(args.ulysses_degree, args.ring_degree, others, world_size, heads)
    return Parallelism(
        **degrees,
        ring=ring,
        ulysses=ulysses,
        num_pipeline_patch=args.num_pipeline_patch,
        pipefusion_warmup_steps=args.warmup_steps,
        parallel_vae=args.use_parallel_vae,
    )


def _or(explicit: _T | None, default: _T) -> _T:
    return default if explicit is None else explicit


def _choose_engine(
    wanted: Literal["auto"] | EngineName,
    spec: ModelSpec,
    parallel: Parallelism,
    device: DeviceType,
    optimizations: Optimizations,
) -> EngineName:
    offered = spec.family.modes
    if wanted != "auto":
        if wanted not in offered:
            raise UserError(
                f"--engine {wanted} has no {spec.family.name} pipeline; use --engine {min(offered)}"
            )
        if wanted == "xdit" and (reason := reason_against_xdit()) is not None:
            raise UserError(f"--engine xdit {reason}")
        return wanted
    able = [engine for engine in _installed(offered, device) if offered[engine].issuperset(parallel.modes)]
    if (cache := optimizations.cache) is not None:
        able = [engine for engine in able if cache in spec.family.caches.get(engine, ())] or able
    return (able or [*_installed(offered, device)])[0]


def _installed(offered: Mapping[EngineName, frozenset[Mode]], device: DeviceType) -> list[EngineName]:
    """Engines of a family that can run here, the preferred one first."""
    xdit_runs = device != "mps" and reason_against_xdit() is None
    return [engine for engine in ENGINES if engine in offered and (engine != "xdit" or xdit_runs)]
