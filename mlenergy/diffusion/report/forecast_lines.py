"""A finished run against its forecast: as expected, or by how much it is not, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.own_runs import plan_of_result
from mlenergy.diffusion.forecast.predict import Forecast, forecast_of
from mlenergy.diffusion.forecast.published import nearest_published
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.results.units import Unit, unit_of

_STAGES = {"text_encode": "text encoding", "denoise": "denoising", "vae_decode": "the VAE"}


def forecast_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lines of a summary; none on a CPU, and where no forecast can be made of the run."""
    if result["configuration"]["device"] != "cuda":
        return []
    try:
        plan = plan_of_result(result)
        found = forecast_of(plan, plan.device_name, may_count=False)
    except UserError:
        return []
    unit = unit_of(result)
    measured = result[unit.mean_time] * plan.batch_size
    seconds = found.duration_s
    text = f"{_verdict(measured, found)}: {number(measured)} s an iteration, {number(seconds.value)} were"
    text += f" forecast ({number(seconds.low)} to {number(seconds.high)})"
    if found.basis in ("gpus", "video_gpus"):
        text += f", {found.extrapolated[0]}"
    text += _where(result, measured, found)
    rows = [("forecast", text + _joules(result[unit.energy], unit, found))]
    published = nearest_published(plan, found.gpu)
    if published is not None and measured > found.duration_s.high:
        differs = f" ({', '.join(published.differs)})" if published.differs else ""
        rows.append(("published", f"{number(published.duration_s)} s{differs}: {published.source}"))
    return rows


def _verdict(measured: float, found: Forecast) -> str:
    ratio = measured / found.duration_s.value
    if found.duration_s.low <= measured <= found.duration_s.high:
        return "as forecast"
    return (
        f"{number(ratio)} times the forecast" if ratio > 1 else f"faster than forecast, {number(ratio)} times"
    )


def _joules(measured: float | None, unit: Unit, found: Forecast) -> str:
    """Joules of an output against their forecast; nothing where one of both is not known."""
    forecast = found.energy_per_output_j
    if measured is None or forecast is None:
        return ""
    ratio = "as forecast"
    if not forecast.low <= measured <= forecast.high:
        ratio = f"{number(measured / forecast.value)} times the forecast"
    interval = f"{number(forecast.low)} to {number(forecast.high)}"
    return f"; joules {ratio} ({number(forecast.value)} per {unit.name}, {interval})"


def _where(result: Mapping[str, Any], measured: float, found: Forecast) -> str:
    """The stage that takes most of the seconds too many, where the run is slower than it should be."""
    stages = result["stages"]
    known = {name: stages.get(f"{name}_s") for name in _STAGES}
    if measured <= found.duration_s.high or any(part is None for part in known.values()):
        return ""
    over = {name: part["mean"] - found.parts_s[name] for name, part in known.items() if part is not None}
    worst = max(over, key=lambda name: over[name])
    own = stages[f"{worst}_s"]["mean"]
    return f"; most of it in {_STAGES[worst]}: {number(own)} s against {number(found.parts_s[worst])}"
