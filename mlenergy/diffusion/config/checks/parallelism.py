"""Degrees that neither engine can run, in one wording for both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mlenergy.diffusion.config.parallelism import MODES

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


def _modes(plan: Plan) -> str | None:
    """The first mode of the plan that its engine does not offer for the model's family, or None."""
    offered = plan.spec.family.modes[plan.engine]
    for mode in plan.parallel.modes:
        if mode not in offered:
            elsewhere = [e for e, modes in plan.spec.family.modes.items() if mode in modes]
            instead = f"use --engine {elsewhere[0]}" if elsewhere else "leave it out"
            reason = plan.spec.family.reasons.get(mode)
            why = "see docs/capabilities.md" if reason is None else reason
            return (
                f"--{MODES[mode].option}: the {plan.engine} engine does not offer it for "
                f"{plan.spec.family.name} models ({why}); {instead}"
            )
    return None


def _heads(plan: Plan) -> str | None:
    heads, ulysses = plan.spec.heads, plan.parallel.ulysses
    keys = plan.spec.kv_heads or heads
    if heads is None or keys is None or (heads % ulysses == 0 and keys % ulysses == 0):
        return None
    fits = [str(d) for d in range(1, heads + 1) if heads % d == 0 and keys % d == 0 and d <= 16]
    which = f"{heads} attention heads" if heads % ulysses else f"{keys} key heads"
    return (
        f"--ulysses_degree {ulysses} does not divide the {which} of {plan.spec.model_id}; "
        f"use one of {', '.join(fits)}, or --ring_degree, which needs no heads"
    )


def _rows(plan: Plan) -> str | None:
    """Sequences are split by whole rows; a UNet has none, and no degree that splits one."""
    parallel, rows = plan.parallel, plan.token_rows
    if rows % parallel.sequence == 0 or not plan.spec.family.shares_rows:
        return None
    step = plan.height_px // rows * parallel.sequence
    lower = max(plan.height_px // step, 1) * step
    return (
        f"--workload.height {plan.height_px} makes {rows} rows of tokens, which ulysses "
        f"{parallel.ulysses} x ring {parallel.ring} = {parallel.sequence} processes cannot share evenly; "
        f"use a height of {lower} or {lower + step}"
    )


def _tokens(plan: Plan) -> str | None:
    """Sequences that are split by tokens: xfuser's Wan pads them and attends to the padding."""
    parallel = plan.parallel
    if plan.spec.family.shares_rows or plan.tokens % parallel.sequence == 0:
        return None
    token_px = plan.spec.latent_factor * plan.spec.patch_size
    columns = plan.width_px // token_px
    frames = plan.tokens // (plan.token_rows * columns)
    return (
        f"{frames} latent frames of {plan.token_rows} x {columns} tokens are {plan.tokens} tokens, which "
        f"ulysses {parallel.ulysses} x ring {parallel.ring} = {parallel.sequence} processes cannot share "
        f"evenly; use {_nearest_shared(plan)}"
    )


def _nearest_shared(plan: Plan) -> str:
    """Options whose nearest value, alone, makes a number of tokens that the processes share evenly."""
    px, most = plan.spec.size_multiple_px, plan.parallel.sequence
    steps = {"height": ("height_px", px), "width": ("width_px", px)}
    if plan.num_frames is not None:
        steps["num_frames"] = ("num_frames", plan.spec.frame_factor * plan.spec.patch_frames)
    found = []
    for option, (name, step) in steps.items():
        now = getattr(plan, name)
        near = [now + sign * count * step for count in range(1, most + 1) for sign in (-1, 1)]
        fits = (
            value for value in near if value > 0 and replace(plan, **{name: value}).tokens % most == 0
        )  # nearest first
        value = next(fits, None)
        found += [] if value is None else [f"--workload.{option} {value}"]
    return ", or ".join((*found, "fewer processes"))


def _guidance_batch(plan: Plan) -> str | None:
    if plan.parallel.cfg == 1:
        return None
    if plan.parallel.cfg != 2:
        return f"guidance has two halves, so {plan.parallel.cfg} processes cannot share them; use 2"
    if plan.spec.guidance != "classifier-free":
        return f"{plan.spec.model_id} runs no guidance batch that processes could share; use other degrees"
    if not plan.runs_guidance_batch:
        scale = "none" if plan.guidance_scale is None else f"{plan.guidance_scale:g}"
        return (
            f"--use_cfg_parallel shares the guidance batch, but guidance scale {scale} runs none; "
            f"use a --workload.guidance_scale above {plan.spec.family.unguided_scale:g}, or other degrees"
        )
    return None


def _rows_of_one_text(plan: Plan) -> str | None:
    """Where an engine's attention does not see which tokens of a text are padding, a rank takes one row."""
    family, parallel = plan.spec.family, plan.parallel
    used = [mode for mode in parallel.modes if mode in family.unmasked_modes.get(plan.engine, frozenset())]
    images = plan.batch_size // parallel.data
    halves = 1 if family.separate_guidance or not plan.runs_guidance_batch else 2 // parallel.cfg
    if not used or images * halves == 1:
        return None
    texts = "the prompts of a batch" if images > 1 else "the prompt and the negative one"
    fits = "--workload.batch_size 1 for each data-parallel group" if images > 1 else "--use_cfg_parallel"
    return (
        f"--{MODES[used[0]].option}: the {plan.engine} engine would attend to the padding of {family.name}'s "
        f"shorter texts, and {texts} differ in length; use {fits}, or other degrees"
    )


def _padded_sequence(plan: Plan) -> str | None:
    """A padded sequence that the ranks do not divide gets more padding, which counts as tokens."""
    step, sequence = plan.spec.family.sequence_step, plan.parallel.sequence
    if step is None or step % sequence == 0:
        return None
    fits = [str(degree) for degree in range(1, 17) if step % degree == 0]
    return (
        f"ulysses {plan.parallel.ulysses} x ring {plan.parallel.ring} = {sequence} processes cannot share "
        f"evenly what {plan.spec.family.name} models pad to a multiple of {step} tokens; use a product of "
        f"{', '.join(fits)}"
    )


def _uneven_batch(plan: Plan) -> str | None:
    groups = plan.parallel.data
    if plan.batch_size % groups == 0:
        return None
    return (
        f"--workload.batch_size {plan.batch_size} cannot be shared evenly by {groups} data-parallel groups; "
        f"use {(plan.batch_size // groups + 1) * groups}"
    )


def _ring_dtype(plan: Plan) -> str | None:
    if plan.parallel.ring == 1 or plan.device == "cpu" or plan.dtype != "float32":
        return None
    return (
        "ring attention needs float16 or bfloat16 on a GPU (no float32 kernel of torch returns what rings "
        "merge by); use --workload.dtype bfloat16, or --ulysses_degree"
    )


# Alone and before the others: they are of degrees that the engine has.
OFFERED = (_modes,)
CHECKS = (
    _heads,
    _rows,
    _tokens,
    _padded_sequence,
    _guidance_batch,
    _uneven_batch,
    _rows_of_one_text,
    _ring_dtype,
)
