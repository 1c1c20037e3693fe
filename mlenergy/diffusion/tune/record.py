"""The search as plain data: the content of tune.json, which the report is made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlenergy.diffusion.executors.ledger import now
from mlenergy.diffusion.tune.candidates import Choice
from mlenergy.diffusion.tune.front import Verdict, judge
from mlenergy.diffusion.tune.intervals import Interval, Spread
from mlenergy.diffusion.tune.machine import Machine
from mlenergy.diffusion.tune.pruning import Pruned
from mlenergy.diffusion.tune.schedule import Limits
from mlenergy.diffusion.tune.settings import command_line, options_of, settings_of
from mlenergy.diffusion.tune.state import Objectives, Tried, objectives_of, points_of

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Frame:
    """What does not change while a search runs."""

    model_id: str
    command: str
    folder: str
    machine: Machine
    limits: Limits
    choice: Choice


def record(frame: Frame, tried: Sequence[Tried], spent_s: float, ended: str) -> dict[str, Any]:
    """Everything that is known.

    Args:
        frame: what was asked for.
        tried: every candidate.
        spent_s: of the budget, by this call.
        ended: why there are no more starts; "running" while there are.
    """
    objectives = objectives_of(tried)
    verdicts = judge(points_of(tried, objectives))
    entries = [_entry(frame, one, objectives, verdicts.get(one.candidate.number)) for one in tried]
    states = [entry["state"] for entry in entries]
    return {
        "schema_version": SCHEMA_VERSION,
        "date": now(),
        "model_id": frame.model_id,
        "command": frame.command,
        "folder": frame.folder,
        "machine": asdict(frame.machine),
        "limits": asdict(frame.limits),
        "spent_s": round(spent_s, 3),
        "ended": ended,
        "objectives": ["seconds_per_image", *(["joules_per_image"] if objectives.energy_of else [])],
        "energy_of": objectives.energy_of,
        "energy_reason": objectives.reason,
        "start_to_start": {
            "seconds": _plain(objectives.seconds_spreads.common),
            "joules": _plain(objectives.joules_spreads.common),
        },
        "counts": {
            "candidates": len(entries),
            "pruned": len(frame.choice.pruned),
            **{state: states.count(state) for state in STATES},
        },
        "front": _front(entries),
        "guess_reason": frame.choice.guess_reason,
        "candidates": entries,
        "pruned": _grouped(frame.choice.pruned),
    }


STATES = ("front", "undecided", "dominated", "not comparable", "failed", "not measured")


def _entry(frame: Frame, one: Tried, objectives: Objectives, verdict: Verdict | None) -> dict[str, Any]:
    state, reason = _state(one, verdict)
    seconds = objectives.seconds(one) if one.starts else None
    joules = objectives.joules(one) if one.starts and objectives.energy_of is not None else None
    peaks = [start.peak_memory_bytes for start in one.starts if start.peak_memory_bytes is not None]
    return {
        "number": one.candidate.number,
        "label": one.candidate.label,
        "state": state,
        "reason": reason,
        "sure": None if verdict is None else verdict.is_sure,
        "not_told_apart_from": [] if verdict is None else list(verdict.may_lose_to),
        "settings": settings_of(one.candidate.plan),
        "devices": one.candidate.plan.parallel.world_size,
        "images_per_s": None if seconds is None else 1 / seconds.mean,
        "seconds_per_image": _interval(seconds),
        "joules_per_image": _interval(joules),
        "energy_reason": next((s.energy_reason for s in one.starts if s.energy_reason is not None), None),
        "own_start_to_start": {
            "seconds": _plain(objectives.seconds_spreads.own.get(one.candidate.number)),
            "joules": _plain(objectives.joules_spreads.own.get(one.candidate.number)),
        },
        "peak_memory_bytes": max(peaks, default=None),
        "peak_memory_reason": next((s.peak_memory_reason for s in one.starts), None),
        "command": _command(frame, one),
        "guess": one.candidate.guess,
        "failure": None if one.failure is None else one.failure.message,
        "warnings": list(dict.fromkeys(line for start in one.starts for line in start.warnings)),
        "starts": [asdict(start) for start in one.starts],
    }


def _state(one: Tried, verdict: Verdict | None) -> tuple[str, str | None]:
    """Its state, and why it is not on the front."""
    if verdict is None:
        if one.failure is not None:
            return "failed", one.failure.message
        if one.starts:
            return "not comparable", "its joules per image are not known, and those of others are"
        return "not measured", "the search ended before"
    if verdict.dominated_by is not None:
        return "dominated", f"dominated by #{verdict.dominated_by}"
    if verdict.on_front:
        return "front", None
    return "undecided", f"its means are worse than those of #{verdict.behind}, but the intervals touch"


def _front(entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of the points on the front, the fastest first."""
    points = [entry for entry in entries if entry["state"] == "front"]
    return [entry["number"] for entry in sorted(points, key=lambda e: e["seconds_per_image"]["mean"])]


def _command(frame: Frame, one: Tried) -> str:
    """As the last start was made, but into the folder where the user's results go."""
    plan = one.candidate.plan
    options = options_of(one.candidate.args, plan)
    iterations = one.starts[-1].iterations if one.starts else frame.limits.first_iters
    return command_line({**options, "benchmark_iters": iterations})


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    known = math.isfinite(interval.high)
    return {
        "mean": interval.mean,
        "ci95_low": interval.low if known else None,
        "ci95_high": interval.high if known else None,
        "ci95_half_width": interval.half_width if known else None,
    }


def _plain(spread: Spread | None) -> dict[str, Any] | None:
    return None if spread is None else asdict(spread)


def _grouped(pruned: Sequence[Pruned]) -> list[dict[str, Any]]:
    """By reason: one reason often holds for many combinations."""
    groups: dict[str, list[str]] = {}
    for one in pruned:
        groups.setdefault(one.reason, []).append(one.label)
    return [{"reason": reason, "settings": labels} for reason, labels in groups.items()]
