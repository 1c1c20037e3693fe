"""A finished run against its forecast: as expected, or by how much it is not, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.own_runs import plan_of_result
from mlenergy.diffusion.forecast.predict import Forecast, forecast_of
from mlenergy.diffusion.forecast.published import nearest_published
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.results.units import unit_of

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
    measured = result[unit_of(result).mean_time] * plan.batch_size
    text = f"{_verdict(measured, found)}; {number(found.duration_s.value)} s were forecast for an iteration"
    text += f" ({number(found.duration_s.low)} to {number(found.duration_s.high)})"
    if found.basis == "gpus":
        text += f", {found.extrapolated[0]}"
    rows = [("forecast", text + _where(result, measured, found))]
    published = nearest_published(plan, found.gpu)
    if published is not None and measured > found.duration_s.high:
        differs = f" ({', '.join(published.differs)})" if published.differs else ""
        rows.append(("published", f"{number(published.duration_s)} s{differs}: {published.source}"))
    return rows


def _verdict(measured: float, found: Forecast) -> str:
    ratio = measured / found.duration_s.value
    if found.duration_s.low <= measured <= found.duration_s.high:
        return "as forecast"
    return f"{number(ratio)} x the forecast" if ratio > 1 else f"faster than forecast, {number(ratio)} x"


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
