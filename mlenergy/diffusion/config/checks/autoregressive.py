"""Limits of models that predict an image scale by scale, and of options that are only for or not for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlenergy.diffusion.config.optimizations import CUDA_GRAPH_MODES, OPTIMIZATIONS
from mlenergy.diffusion.models.next_scale import nearest_size

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan

# Optimizations that act on the engine's own modules; the others act on diffusers' or on steps.
_OFFERED = {
    *("compile_mode", "cuda_graphs", "compile_fullgraph", "compile_static_shapes", "compile_cache"),
    *("inductor_mode", "inductor_coordinate_descent", "inductor_conv_1x1_as_mm", "inductor_epilogue_fusion"),
    *("cudnn_benchmark", "tf32"),
}

_MOST_SIZES = 6  # that a line lists


def _only_for_scales(plan: Plan) -> str | None:
    """Options of next-scale prediction for a model that has no scales."""
    if plan.spec.next_scale is not None:
        return None
    asked = {"top_k": plan.top_k, "top_p": plan.top_p, "class_ids": plan.class_ids}
    found = [f"--workload.{name}" for name, value in asked.items() if value is not None]
    if found:
        return f"{found[0]} is for models that predict tokens, such as var-d16; leave it out"
    if plan.optimizations.cuda_graphs:
        return "--use_cuda_graphs is for models that predict scales, such as var-d16; leave it out"
    return None


def _size(plan: Plan) -> str | None:
    model = plan.spec.next_scale
    if model is None or (plan.height_px, plan.width_px) in model.schedules:
        return None
    asked = f"{plan.height_px}x{plan.width_px}"
    if len(model.schedules) > _MOST_SIZES:
        height, width = nearest_size(model.schedules, plan.height_px, plan.width_px)
        return (
            f"{plan.spec.model_id} makes images of {len(model.schedules)} sizes, not of {asked} "
            f"(height x width); the nearest is --workload.height {height} --workload.width {width}"
        )
    sizes = ", ".join(f"{height}x{width}" for height, width in model.schedules)
    return (
        f"{plan.spec.model_id} makes images of {sizes} (height x width) and no others, not of "
        f"{asked}; set --workload.height and .width to one of these"
    )


def _steps(plan: Plan) -> str | None:
    if plan.schedule is None or plan.steps == len(plan.schedule):
        return None
    return (
        f"{plan.spec.model_id} has no denoising steps: it predicts {len(plan.schedule)} scales; "
        "leave --workload.inference_steps out"
    )


def _classes(plan: Plan) -> str | None:
    model = plan.spec.next_scale
    if model is None or not plan.class_ids:
        return None
    if model.classes is None:
        return (
            f"{plan.spec.model_id} is steered by prompts and has no classes; leave --workload.class_ids out"
        )
    wrong = [number for number in plan.class_ids if not 0 <= number < model.classes]
    if not wrong:
        return None
    return f"--workload.class_ids {wrong[0]} is not a class of {plan.spec.model_id}: 0 to {model.classes - 1}"


def _text_options(plan: Plan) -> str | None:
    """Options of the prompts of a model that no prompt steers."""
    if not plan.is_class_conditional:
        return None
    asked = {
        "negative_prompt": plan.negative_prompt is not None,
        "prompt_prefix": bool(plan.prompt_prefix),
        "prompt_order": plan.prompt_order != "shuffled",
        "max_sequence_length": plan.max_sequence_length is not None,
    }
    found = [name for name, is_asked in asked.items() if is_asked]
    if not found:
        return None
    return (
        f"{plan.spec.model_id} is class-conditional, no prompt steers it; leave --workload.{found[0]} out, "
        "and choose classes by --workload.class_ids"
    )


def _files(plan: Plan) -> str | None:
    """Options on files in diffusers' format."""
    if plan.spec.next_scale is None:
        return None
    asked = {
        "lora": plan.lora is not None,
        "variant": plan.variant is not None,
        "trust_remote_code": plan.trust_remote_code,
        "allow_pickle": plan.allow_pickle,
        "use_resolution_binning": plan.use_resolution_binning,
    }
    found = [name for name, is_asked in asked.items() if is_asked]
    return f"--workload.{found[0]} does nothing for {plan.spec.model_id}; leave it out" if found else None


def _optimizations(plan: Plan) -> str | None:
    not_offered = [record for name, record in plan.optimizations.in_use.items() if name not in _OFFERED]
    if not not_offered:
        return None
    value = next(
        getattr(plan.optimizations, name) for name in plan.optimizations.in_use if name not in _OFFERED
    )
    known = ", ".join(f"--{OPTIMIZATIONS[name].option}" for name in sorted(_OFFERED))
    return (
        f"--{not_offered[0].option_for(value)}: the autoregressive engine does not offer it; leave it out "
        f"(it offers {known})"
    )


def _cuda_graphs(plan: Plan) -> str | None:
    mode = plan.optimizations.inductor_mode
    if mode in CUDA_GRAPH_MODES:
        return (
            f"--inductor_mode {mode} records one length of a sequence, and every scale has another; use "
            f"--use_cuda_graphs without --use_torch_compile, or {CUDA_GRAPH_MODES[mode]}"
        )
    if not plan.optimizations.cuda_graphs:
        return None
    if plan.device != "cuda":
        return f"--use_cuda_graphs needs an NVIDIA GPU, and this run is on {plan.device}; leave it out"
    if plan.optimizations.compile_mode is not None:
        return "--use_cuda_graphs and --use_torch_compile were not tried together; use one of them"
    return None


OF_THE_MODEL = (_only_for_scales, _size, _steps, _classes, _text_options, _files)
CHECKS = (_optimizations, _cuda_graphs)
