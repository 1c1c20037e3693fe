"""Measured results as runs that constants can be fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.cards import card_named
from mlenergy.diffusion.forecast.observed import Observed
from mlenergy.diffusion.forecast.predict import refuse_guesses
from mlenergy.diffusion.forecast.work import work_of
from mlenergy.diffusion.models.architectures.reader import find_architecture
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.results.find import find_results, require_folder
from mlenergy.diffusion.results.read import load_found


@dataclass
class OwnRuns:
    """Runs that can be used, and the folders of the others with the reason."""

    rows: list[Observed] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def own_runs(root: Path) -> OwnRuns:
    """Every complete result below a folder that the formula holds for.

    Raises:
        UserError: there is no such folder.
    """
    require_folder(root)
    found = OwnRuns()
    for place in find_results(root):
        loaded = load_found(root, place)
        if loaded.content is None:
            found.left_out.append((place.folder, loaded.record.reason or loaded.record.state))
            continue
        try:
            found.rows.append(_observed(loaded.content, loaded.record))
        except UserError as error:
            found.left_out.append((place.folder, str(error)))
    return found


def _observed(content: Mapping[str, Any], record: Any) -> Observed:
    plan = plan_of_result(content)
    if plan.device != "cuda":
        raise UserError(f"it ran on {plan.device}, and the formula is that of a GPU")
    card = card_named(plan.device_name, plan.dtype)
    refuse_guesses(plan, card)
    model = find_architecture(plan.weights_from, plan.revision)
    energy = record.energy_mean_j
    return Observed(
        model=plan.spec.model_id,
        card=card,
        work=work_of(plan, model, costs_of(model)),
        duration_s=record.time_mean_s * plan.batch_size,
        energy_j=None if energy is None else energy * plan.batch_size,
    )


def plan_of_result(content: Mapping[str, Any]) -> Plan:
    """The plan that a result was measured by.

    Raises:
        UserError: its model is not known any more, or its settings are of another version.
    """
    configuration = content["configuration"]
    apart = ("spec", "parallel", "optimizations", "preset")
    try:
        values = {f.name: configuration[f.name] for f in fields(Plan) if f.name in configuration}
        parallel = {f.name: configuration["parallel"][f.name] for f in fields(Parallelism)}
        optimizations = {
            f.name: configuration["knobs"][f.name]
            for f in fields(Optimizations)
            if f.name in configuration["knobs"]
        }
        return Plan(
            spec=resolve_model(configuration["model_id"]),
            parallel=Parallelism(**parallel),
            optimizations=Optimizations(**optimizations),
            **{name: value for name, value in values.items() if name not in apart},
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"its settings are of another version of this program: {error}") from error
