"""What the xdit engine cannot do, found in the plan before anything loads; no torch.

Each line gives the arithmetic and what would fit. Modes that a family lacks altogether are the
planning room's to refuse (models/modes.py); xfuser's faults that are mended are no refusals
(engines/xdit_faults.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlenergy.diffusion.plan import Plan


def refusals(plan: Plan) -> list[str]:
    """Every reason why the xdit engine cannot run this plan; empty for other engines' plans."""
    if plan.engine != "xdit":
        return []
    checks = (
        *(_unet, _guidance_batch, uneven_batch, _heads, _rows, _patches, _synchronous_steps),
        *(_tensor, _stages, _hunyuandit_skips, _parallel_vae, _binning, _ring_dtype),
    )
    return [line for line in (check(plan) for check in checks) if line]


def approximation(plan: Plan) -> str | None:
    """Why the images are not exactly those of one rank, or None where they are."""
    parallel = plan.parallel
    if plan.engine != "xdit" or parallel.pipefusion == 1 or pipeline_patches(plan) == 1:
        return None
    stale = plan.steps - parallel.pipefusion_warmup_steps
    if stale <= 0:
        return None
    return (
        f"PipeFusion with {pipeline_patches(plan)} patches: {stale} of {plan.steps} steps use activations "
        "of the step before"
    )


def pipeline_patches(plan: Plan) -> int:
    """Patches that PipeFusion is asked for: as many as it has stages, where none are named."""
    return plan.parallel.num_pipeline_patch or plan.parallel.pipefusion


def _unet(plan: Plan) -> str | None:
    parallel = plan.parallel
    if plan.spec.family.denoiser != "unet" or parallel.world_size == 1:
        return None
    if parallel.cfg == 2 and parallel.world_size == 2:
        return None
    return (
        f"xfuser runs {plan.spec.family.name} on one process, or on two that share the guidance; these "
        f"degrees make {parallel.world_size}; use --use_cfg_parallel alone with --nproc_per_node=2, or "
        "--engine diffusers"
    )


def _guidance_batch(plan: Plan) -> str | None:
    if plan.parallel.cfg == 1:
        return None
    if plan.parallel.cfg != 2:
        return f"guidance has two halves, so {plan.parallel.cfg} processes cannot share them; use 2"
    if plan.spec.guidance != "classifier-free":
        return f"{plan.spec.model_id} runs no guidance batch that processes could share; use other degrees"
    if plan.guidance_scale is None or plan.guidance_scale <= 1:
        scale = "none" if plan.guidance_scale is None else f"{plan.guidance_scale:g}"
        return (
            f"--use_cfg_parallel shares the guidance batch, but guidance scale {scale} runs none; "
            "use a --workload.guidance_scale above 1, or other degrees"
        )
    return None


def uneven_batch(plan: Plan) -> str | None:
    """Why data-parallel groups cannot share the batch, of either engine; None where they can."""
    groups = plan.parallel.data
    if plan.batch_size % groups == 0:
        return None
    return (
        f"--workload.batch_size {plan.batch_size} cannot be shared evenly by {groups} data-parallel groups; "
        f"use {(plan.batch_size // groups + 1) * groups}"
    )


def _heads(plan: Plan) -> str | None:
    heads, ulysses = plan.spec.heads, plan.parallel.ulysses
    if heads is None or heads % ulysses == 0:
        return None
    fits = ", ".join(str(d) for d in range(1, min(heads, 16) + 1) if heads % d == 0)
    return (
        f"--ulysses_degree {ulysses} does not divide the {heads} attention heads of {plan.spec.model_id}; "
        f"use one of {fits}, or --ring_degree"
    )


def _token_rows(plan: Plan) -> int:
    """Rows of tokens in one image."""
    return plan.height_px // (plan.spec.family.latent_factor * plan.spec.family.patch_size)


def _rows(plan: Plan) -> str | None:
    sequence, rows = plan.parallel.sequence, _token_rows(plan)
    if plan.spec.family.denoiser == "unet" or rows % sequence == 0:
        return None
    step = plan.height_px // rows * sequence
    lower = max(plan.height_px // step, 1) * step
    return (
        f"--workload.height {plan.height_px} makes {rows} rows of tokens, which ulysses "
        f"{plan.parallel.ulysses} x ring {plan.parallel.ring} = {sequence} processes cannot share evenly; "
        f"use a height of {lower} or {lower + step}"
    )


def _patches(plan: Plan) -> str | None:
    """xfuser cuts equal patches of whole shares, and takes fewer of them where they do not fit."""
    if plan.parallel.pipefusion == 1:
        if plan.parallel.num_pipeline_patch not in (None, 1):
            return (
                "--num_pipeline_patch is PipeFusion's; use --pipefusion_parallel_degree too, or leave it out"
            )
        return None
    shares = _token_rows(plan) // plan.parallel.sequence
    wanted = pipeline_patches(plan)
    if wanted >= 1 and _patches_made(shares, wanted) == wanted:
        return None
    fits = ", ".join(str(n) for n in range(1, min(shares, 16) + 1) if _patches_made(shares, n) == n)
    return (
        f"PipeFusion cannot cut {_token_rows(plan)} rows of tokens, shared by {plan.parallel.sequence} "
        f"processes, into {wanted} patches; use a --num_pipeline_patch of {fits}"
    )


def _patches_made(shares: int, wanted: int) -> int:
    """Patches that come out when ``shares`` rows are cut into equal ones of the size that ``wanted`` asks."""
    height = -(-shares // wanted)
    return -(-shares // height)


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
    """Whether no stage is left without layers; HunyuanDiT's paired stages have to be equal."""
    if plan.spec.family.name == "hunyuandit":
        return layers % stages == 0
    return -(-layers // stages) * (stages - 1) < layers


def _hunyuandit_skips(plan: Plan) -> str | None:
    """HunyuanDiT's second half takes what its first half hands over: each stage has one partner."""
    parallel = plan.parallel
    if plan.spec.family.name != "hunyuandit" or parallel.pipefusion == 1:
        return None
    if parallel.pipefusion % 2:
        return (
            f"--pipefusion_parallel_degree {parallel.pipefusion}: HunyuanDiT's stages work in pairs; "
            f"use {parallel.pipefusion - 1} or {parallel.pipefusion + 1}"
        )
    if plan.guidance_scale is None or plan.guidance_scale <= 1:
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


def _ring_dtype(plan: Plan) -> str | None:
    if plan.parallel.ring == 1 or plan.device == "cpu" or plan.dtype != "float32":
        return None
    return (
        "ring attention needs float16 or bfloat16 on a GPU (no float32 kernel of torch returns what rings "
        "merge by); use --workload.dtype bfloat16, or --ulysses_degree"
    )
