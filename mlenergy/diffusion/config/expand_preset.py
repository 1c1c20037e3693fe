"""From a preset to the options that one run accepts, with the reasons against the others. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.checks import reasons
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.presets import (
    FIELD_OF,
    Conditions,
    Entry,
    LeftOut,
    Preset,
    entries,
    words_of,
)
from mlenergy.diffusion.environment.capability import capability_of


def with_preset(args: BenchmarkArgs, resolved: Callable[[BenchmarkArgs], Plan]) -> Plan:
    """The plan with every option of its preset that it accepts beside those that are given and taken before.

    Args:
        args: the options, with a preset.
        resolved: makes the plan of options, unchecked.

    Raises:
        UserError: the given options exclude each other.
    """
    name = args.preset
    if name is None:
        raise ValueError("there is no preset")
    given = _fields_given(args)
    plan = resolved(args)
    against = reasons(plan)
    taken: list[Entry] = []
    left_out: dict[str, LeftOut] = {}  # by the options, of which several entries may have the same
    for entry in entries():
        if name not in entry.presets:
            continue
        reason = _reason_against(entry, args, plan, given, taken)
        if reason is None:
            asked = replace(args, **dict(entry.options))
            tried = resolved(asked)
            refused = reasons(tried)
            reason = next((one for one in refused if one not in against), None)
            if reason is None:
                args, plan, against = asked, tried, refused
                taken.append(entry)
        if reason is not None:
            left_out[words_of(entry.options)] = LeftOut(entry.options, reason)
    for entry in taken:
        left_out.pop(words_of(entry.options), None)
    return replace(plan, preset=Preset(name, tuple(taken), tuple(left_out.values())))


def _reason_against(
    entry: Entry, args: BenchmarkArgs, plan: Plan, given: frozenset[str], taken: Sequence[Entry]
) -> str | None:
    """The reason why an entry of a preset is not for a run as it is until here; None where it is."""
    if entry.fields & given:
        return "the given options decide it"
    if (reason := _broken(entry.conditions, plan)) is not None:
        return reason
    for before in taken:
        if before.fields & entry.fields:
            return f"{words_of(before.options)} stands in its place"
    lacking = [option for option in entry.needs if not getattr(args, option)]
    return f"it is known together with --{lacking[0]}, which is not taken" if lacking else None


def _fields_given(args: BenchmarkArgs) -> frozenset[str]:
    """Optimizations that the options decide: what is written out, or is not at its default."""
    differing = {field.name for field in fields(args) if getattr(args, field.name) != field.default}
    return frozenset(FIELD_OF[name] for name in args.given | differing if name in FIELD_OF)


def _broken(conditions: Conditions, plan: Plan) -> str | None:
    """The reason why conditions do not hold for a plan; None where they do."""
    spec, count, side = plan.spec, plan.parallel.world_size, max(plan.height_px, plan.width_px)
    name, capability = plan.device_name, capability_of(plan.device_name)
    values: tuple[tuple[str, tuple[Any, ...], Any], ...] = (
        ("devices of type", conditions.devices, plan.device),
        ("GPUs of compute capability", conditions.capabilities, capability),
        ("the model", conditions.models, spec.model_id),
        ("the family", conditions.families, spec.family.name),
        ("denoisers of type", conditions.denoisers, spec.family.denoiser),
        ("runs in", conditions.dtypes, plan.dtype),
    )
    for what, wanted, value in values:
        if wanted and value not in wanted:
            of = f" ({name})" if what.startswith("GPUs") else ""
            is_here = "unknown" if value is None else value
            return f"it is for {what} {', '.join(map(str, wanted))}, and here it is {is_here}{of}"
    if conditions.gpus and not any(word in name for word in conditions.gpus):
        return f"it is for {', '.join(conditions.gpus)}, and this is {name}"
    if conditions.processes_most is not None and count > conditions.processes_most:
        return f"it is for at most {conditions.processes_most} processes, and there are {count}"
    if conditions.processes_least is not None and count < conditions.processes_least:
        return f"it is for at least {conditions.processes_least} processes, and there are {count}"
    if conditions.longer_side_above_px is not None and side <= conditions.longer_side_above_px:
        return f"it is for sides above {conditions.longer_side_above_px} px, and the longer one has {side}"
    return None
