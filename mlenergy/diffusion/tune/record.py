"""The search as plain data: the content of tune.json, from which the report is made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlenergy.diffusion.executors.ledger import now
from mlenergy.diffusion.measure.starts import Interval, Spread
from mlenergy.diffusion.results.units import IMAGE, Unit, unit_made
from mlenergy.diffusion.tune.forecasts import Compared, errors_of
from mlenergy.diffusion.tune.machine import Machine
from mlenergy.diffusion.tune.pareto import Verdict, judge
from mlenergy.diffusion.tune.search import LEAST_STARTS, Limits
from mlenergy.diffusion.tune.settings import command_line, options_of, settings_of
from mlenergy.diffusion.tune.space import Pruned, SearchSpace
from mlenergy.diffusion.tune.trials import Objectives, Trial, objectives_of, points_of

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class SearchSetup:
    """Everything about a search that does not change while it runs."""

    model_id: str
    command: str
    folder: str
    machine: Machine
    limits: Limits
    space: SearchSpace


def record(setup: SearchSetup, trials: Sequence[Trial], spent_s: float, ended: str) -> dict[str, Any]:
    """The content of tune.json.

    Args:
        setup: what was asked for.
        trials: every candidate.
        spent_s: of the budget, by this call.
        ended: the reason why there are no more starts; "running" while there are.
    """
    objectives = objectives_of(trials)
    verdicts = judge(points_of(trials, objectives))
    doubts = {
        trial.candidate.number: _doubts(trial, verdicts[trial.candidate.number], trials, objectives)
        for trial in trials
        if trial.candidate.number in verdicts
    }
    entries = [
        _entry(setup, trial, objectives, verdicts.get(number), doubts.get(number))
        for trial in trials
        for number in (trial.candidate.number,)
    ]
    states = [entry["state"] for entry in entries]
    unit = next((entry["unit"] for entry in entries), IMAGE.name)
    compared = [one for trial in trials if (one := _compared(trial, objectives)) is not None]
    return {
        "schema_version": SCHEMA_VERSION,
        "date": now(),
        "model_id": setup.model_id,
        "command": setup.command,
        "folder": setup.folder,
        "machine": asdict(setup.machine),
        "limits": asdict(setup.limits),
        "spent_s": round(spent_s, 3),
        "ended": ended,
        "unit": unit,
        "objectives": [
            f"{figure}_per_{unit}" for figure in ("seconds", *(["joules"] if objectives.energy_of else []))
        ],
        "energy_of": objectives.energy_of,
        "energy_reason": objectives.reason,
        "start_to_start": {
            "seconds": _plain(objectives.seconds_spreads.common),
            "joules": _plain(objectives.joules_spreads.common),
        },
        "counts": {
            "candidates": len(entries),
            "pruned": len(setup.space.pruned),
            **{state: states.count(state) for state in STATES},
        },
        "front": _front(entries),
        "guess_reason": setup.space.guess_reason,
        "forecast": _forecast(setup.space, compared),
        "forecast_reason": setup.space.forecast_reason,
        "candidates": entries,
        "pruned": _grouped(setup.space.pruned),
    }


STATES = ("front", "undecided", "dominated", "not comparable", "failed", "not measured")


def _entry(
    setup: SearchSetup,
    trial: Trial,
    objectives: Objectives,
    verdict: Verdict | None,
    doubts: Sequence[str] | None,
) -> dict[str, Any]:
    state, reason = _state(trial, verdict)
    unit = _unit(trial)
    seconds = objectives.seconds(trial) if trial.starts else None
    joules = objectives.joules(trial) if trial.starts and objectives.energy_of is not None else None
    peaks = [start.peak_memory_bytes for start in trial.starts if start.peak_memory_bytes is not None]
    return {
        "number": trial.candidate.number,
        "label": trial.candidate.label,
        "state": state,
        "reason": reason,
        "sure": None if doubts is None else not doubts,
        "not_sure_because": list(doubts or ()),
        "not_told_apart_from": [] if verdict is None else list(verdict.may_lose_to),
        "settings": settings_of(trial.candidate.plan),
        "devices": trial.candidate.plan.parallel.world_size,
        "unit": unit.name,
        f"{unit.count}_per_s": None if seconds is None else 1 / seconds.mean,
        f"seconds_per_{unit.name}": _interval(seconds),
        f"joules_per_{unit.name}": _interval(joules),
        "energy_reason": next((s.energy_reason for s in trial.starts if s.energy_reason is not None), None),
        "own_start_to_start": {
            "seconds": _plain(objectives.seconds_spreads.own.get(trial.candidate.number)),
            "joules": _plain(objectives.joules_spreads.own.get(trial.candidate.number)),
        },
        "peak_memory_bytes": max(peaks, default=None),
        "peak_memory_reason": next((s.peak_memory_reason for s in trial.starts), None),
        "command": _command(setup, trial),
        "guess": trial.candidate.guess,
        **_forecast_of(trial, objectives),
        "failure": None if trial.failure is None else trial.failure.message,
        "warnings": list(dict.fromkeys(line for start in trial.starts for line in start.warnings)),
        "starts": [asdict(start) for start in trial.starts],
    }


def _unit(trial: Trial) -> Unit:
    return unit_made(trial.candidate.plan.spec.family.output)


def _compared(trial: Trial, objectives: Objectives) -> Compared | None:
    """A measured candidate with its forecast; joules of the processors are not those of a forecast."""
    expected = trial.candidate.expected
    if isinstance(expected, str) or not trial.starts:
        return None
    joules = objectives.joules(trial) if objectives.energy_of == "gpu" else None
    return Compared(expected, objectives.seconds(trial), joules)


def _forecast_of(trial: Trial, objectives: Objectives) -> dict[str, Any]:
    """A candidate's forecast, and measured ÷ forecast."""
    expected, compared = trial.candidate.expected, _compared(trial, objectives)
    if isinstance(expected, str):
        return {"forecast": None, "forecast_reason": expected}
    unit = _unit(trial).name
    known = {
        f"seconds_per_{unit}": asdict(expected.seconds),
        f"joules_per_{unit}": None if expected.joules is None else asdict(expected.joules),
        "differs": list(expected.differs),
        "seconds_ratio": None if compared is None else compared.seconds_ratio,
        "joules_ratio": None if compared is None else compared.joules_ratio,
    }
    return {"forecast": known, "forecast_reason": None}


def _forecast(space: SearchSpace, compared: Sequence[Compared]) -> dict[str, Any] | None:
    """What the forecasts are based on, and how far off they were; None where no candidate has one."""
    known = [one.expected for one in space.candidates if not isinstance(one.expected, str)]
    if not known:
        return None
    basis = known[0].forecast
    return {
        "gpu": basis.gpu,
        "basis": basis.basis,
        "extrapolated": list(basis.extrapolated),
        "source": basis.source,
        **errors_of(compared),
    }


def _doubts(trial: Trial, verdict: Verdict, trials: Sequence[Trial], objectives: Objectives) -> list[str]:
    """Unknowns that could take a candidate off the front; none where its place is certain."""
    if verdict.dominated_by is not None:
        return [f"it is dominated by #{verdict.dominated_by}"]
    found = []
    if verdict.may_lose_to:
        found.append("its figures and those of others do not differ significantly")
    new = sum(one.is_new for one in trials)
    if new:
        found.append(f"{new} of {len(trials)} candidates were never measured")
    unknown = sum(bool(one.starts) and objectives.values(one) is None for one in trials)
    if unknown:
        found.append(f"{unknown} of {len(trials)} candidates have no joules to compare")
    known = [objectives.seconds_spreads, *([objectives.joules_spreads] if objectives.energy_of else [])]
    if any(spreads.of(trial.candidate.number) is None for spreads in known):
        found.append("nothing was started twice, so the scatter between starts is not known")
    elif len(trial.starts) < LEAST_STARTS:
        found.append("it was started once")
    return found


def _state(trial: Trial, verdict: Verdict | None) -> tuple[str, str | None]:
    """Its state, and the reason why it is not on the front."""
    if verdict is None:
        if trial.failure is not None:
            return "failed", trial.failure.message
        if trial.starts:
            return (
                "not comparable",
                f"its joules per {_unit(trial).name} are not known, and those of others are",
            )
        return "not measured", "the search ended before it was started"
    if verdict.dominated_by is not None:
        return "dominated", f"dominated by #{verdict.dominated_by}"
    if verdict.on_front:
        return "front", None
    return "undecided", f"its means are worse than those of #{verdict.behind}, but the intervals touch"


def _front(entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of the points on the front, the fastest first."""
    points = [entry for entry in entries if entry["state"] == "front"]
    return [entry["number"] for entry in sorted(points, key=lambda e: e[f"seconds_per_{e['unit']}"]["mean"])]


def _command(setup: SearchSetup, trial: Trial) -> str:
    """The command of the last start, with results in the user's own folder."""
    plan = trial.candidate.plan
    options = options_of(trial.candidate.args, plan)
    iterations = trial.starts[-1].iterations if trial.starts else setup.limits.first_iters
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
    """Labels by reason, since one reason often holds for many combinations."""
    groups: dict[str, list[str]] = {}
    for one in pruned:
        groups.setdefault(one.reason, []).append(one.label)
    return [{"reason": reason, "settings": labels} for reason, labels in groups.items()]
