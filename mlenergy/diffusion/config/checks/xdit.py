"""Limits of the xdit engine alone: PipeFusion, tensor parallelism, the parallel VAE.

xfuser's faults that this project patches are not refused (engines/xdit/patches/registry.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


def _patches(plan: Plan) -> str | None:
    """xfuser cuts equal patches of whole shares, and takes fewer of them where they do not fit."""
    if plan.parallel.pipefusion == 1:
        if plan.parallel.num_pipeline_patch not in (None, 1):
            return (
                "--num_pipeline_patch is PipeFusion's; use --pipefusion_parallel_degree too, or leave it out"
            )
        return None
    shares, uneven = divmod(plan.token_rows, plan.parallel.sequence)
    if uneven:
        return None  # refused for that already
    wanted = plan.parallel.pipeline_patches
    if wanted >= 1 and _patches_made(shares, wanted) == wanted:
        return None
    fits = ", ".join(str(n) for n in range(1, min(shares, 16) + 1) if _patches_made(shares, n) == n)
    return (
        f"PipeFusion cannot cut {plan.token_rows} rows of tokens, shared by {plan.parallel.sequence} "
        f"processes, into {wanted} patches; use a --num_pipeline_patch of {fits}"
    )


def _patches_made(shares: int, wanted: int) -> int:
    """Patches that come out when ``shares`` rows are cut into equal ones of the size that ``wanted`` asks."""
    height = -(-shares // wanted)
    return -(-shares // height)


def _patches_beside_sequence(plan: Plan) -> str | None:
    parallel = plan.parallel
    beside = parallel.pipefusion > 1 and parallel.sequence > 1 and parallel.pipeline_patches > 1
    if not beside or plan.spec.family.patches_beside_sequence:
        return None
    return (
        f"xfuser crashes on {plan.spec.family.name} where PipeFusion's {parallel.pipeline_patches} patches "
        f"are shared by ulysses {parallel.ulysses} x ring {parallel.ring}; use --num_pipeline_patch 1, or "
        "PipeFusion without --ulysses_degree and --ring_degree"
    )


def _synchronous_steps(plan: Plan) -> str | None:
    if plan.parallel.pipefusion == 1 or plan.parallel.pipefusion_warmup_steps >= 1:
        return None
    return (
        f"--warmup_steps {plan.parallel.pipefusion_warmup_steps}: PipeFusion needs at least one synchronous "
        "step to fill its caches; use 1 or more"
    )


def _tensor(plan: Plan) -> str | None:
    """yunchang's sequence groups take neighbouring ranks, and so do the tensor-parallel ones."""
    parallel = plan.parallel
    others = parallel.sequence * parallel.pipefusion
    if parallel.tensor == 1 or others == 1:
        return None
    return (
        f"--tensor_parallel_degree {parallel.tensor} beside {others} processes of Ulysses, ring or PipeFusion"
        " gives wrong images in xfuser; use --tensor_parallel_degree 1, or nothing else"
    )


def _stages(plan: Plan) -> str | None:
    layers, stages = plan.spec.layers, plan.parallel.pipefusion
    if layers is None or stages == 1 or _stages_fit(plan, layers, stages):
        return None
    fits = [str(n) for n in range(1, min(layers, 16) + 1) if _stages_fit(plan, layers, n)]
    return (
        f"--pipefusion_parallel_degree {stages} cannot share the {layers} layers of {plan.spec.model_id}; "
        f"use one of {', '.join(fits)}"
    )


def _stages_fit(plan: Plan, layers: int, stages: int) -> bool:
    """True where no stage is left without layers, and paired ones are equal."""
    if plan.spec.family.paired_stages:
        return layers % stages == 0
    return -(-layers // stages) * (stages - 1) < layers


def _paired_stages(plan: Plan) -> str | None:
    """HunyuanDiT's second half takes what its first half hands over: each stage has one partner."""
    parallel = plan.parallel
    if not plan.spec.family.paired_stages or parallel.pipefusion == 1:
        return None
    if parallel.pipefusion % 2:
        return (
            f"--pipefusion_parallel_degree {parallel.pipefusion}: HunyuanDiT's stages work in pairs; "
            f"use {parallel.pipefusion - 1} or {parallel.pipefusion + 1}"
        )
    if not plan.runs_guidance_batch:
        return (
            "xfuser's PipeFusion for HunyuanDiT expects a guidance batch, which a guidance scale of 1 or "
            "less does not run; use a --workload.guidance_scale above 1, or --ulysses_degree"
        )
    return None


def _parallel_vae(plan: Plan) -> str | None:
    parallel = plan.parallel
    if not parallel.parallel_vae:
        return None
    if parallel.world_size // parallel.data == 1:
        return "--use_parallel_vae needs several processes for an image, and there is one; leave it out"
    if parallel.data > 1:
        return (
            f"--use_parallel_vae decodes the images of all {parallel.data} data-parallel groups in each of "
            f"them, {parallel.data} times the work; use --data_parallel_degree 1, or leave it out"
        )
    ranks, rows = parallel.world_size, plan.token_rows
    if plan.spec.family.exchanged_transformer is not None and rows < ranks:
        return (
            f"--use_parallel_vae gives each process a band of rows, of which {plan.height_px} pixels make "
            f"{rows} for {ranks} processes; use a larger --workload.height, or leave it out"
        )
    return None


def _binning(plan: Plan) -> str | None:
    parallel = plan.parallel
    if not plan.use_resolution_binning or parallel.sequence * parallel.pipefusion == 1:
        return None
    return (
        "--workload.use_resolution_binning computes at another size than the plan can check against "
        f"{parallel.sequence * parallel.pipefusion} processes; name a trained size by --workload.height and "
        "--workload.width instead"
    )


def _text(plan: Plan) -> str | None:
    """A transformer that is exchanged cuts a text of known length into equal parts, or waits for ever."""
    family, text, sequence = plan.spec.family, plan.text_tokens_in_sequence, plan.parallel.sequence
    is_cut = family.exchanged_transformer is not None and family.pads_text and not family.cuts_text
    if not is_cut or text % sequence == 0:
        return None
    fits = text - text % sequence or sequence
    return (
        f"{text} text tokens cannot be shared evenly by {sequence} processes in xfuser's {family.name}; use "
        f"--workload.max_sequence_length {fits}, or --engine diffusers"
    )


def _always_guided(plan: Plan) -> str | None:
    family, parallel = plan.spec.family, plan.parallel
    if not family.always_guided or parallel.sequence == 1 or plan.runs_guidance_batch:
        return None
    return (
        f"xfuser's {family.name} pipeline runs no step without the guidance batch, and a guidance scale of 1 "
        "or less has none; use a --workload.guidance_scale above 1, or --data_parallel_degree alone"
    )


CHECKS = (
    _patches,
    _patches_beside_sequence,
    _synchronous_steps,
    _tensor,
    _stages,
    _paired_stages,
    _parallel_vae,
    _binning,
    _text,
    _always_guided,
)
