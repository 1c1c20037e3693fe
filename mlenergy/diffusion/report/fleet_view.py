"""GPUs for a number of images or videos a day, as a table and as data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.cards import card_named
from mlenergy.diffusion.forecast.fleet import Advice, Demand, Offer, advise
from mlenergy.diffusion.forecast.predict import Fitted
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.results.units import unit_made

_WIDTH_PIPED = 150
_LEFT = ("GPU", "shared by")


def demand_of(
    images_per_day: float | None,
    max_latency_s: float | None,
    gpu_hours: Sequence[str],
    price_kwh: float | None,
) -> Demand:
    """The demand that options describe.

    Args:
        images_per_day: images or videos to be made.
        max_latency_s: seconds of a batch at most.
        gpu_hours: prices, each NAME=PRICE.
        price_kwh: price of a kWh.

    Raises:
        UserError: the number is missing, or a price cannot be read.
    """
    if images_per_day is None:
        raise UserError(
            "--gpus compares GPUs for a number of images (or videos) a day; give --images_per_day"
        )
    prices = {}
    for text in gpu_hours:
        name, _, price = text.partition("=")
        try:
            value = float(price)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise UserError(f"--gpu_hour {text} is no price; write it as --gpu_hour H100=2.5")
        prices[card_named(name).name] = value
    return Demand(images_per_day, max_latency_s, prices, price_kwh)


def print_fleet(
    plan: Plan, gpus: Sequence[str], demand: Demand, fitted: Fitted | None, *, as_json: bool
) -> None:
    """Print what each GPU would take to meet a demand.

    Raises:
        UserError: no data sheet of a GPU is known.
    """
    advice = advise(plan, gpus, demand, fitted)
    output = plan.spec.family.output
    if as_json:
        content: dict[str, Any] = {
            "model_id": plan.spec.model_id,
            f"{output}s_per_day": demand.outputs_per_day,
            "offers": [offer.as_dict(output) for offer in advice.offers],
            "without": advice.without,
        }
        print(json.dumps(content, indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_PIPED, highlight=False)
    if advice.offers:
        console.print(_table(plan, demand, advice))
    for gpu, reason in advice.without.items():
        console.print(f"  {gpu}: none: {reason}", soft_wrap=True)
    for offer in advice.offers:
        for reason in offer.extrapolated:
            console.print(f"  {offer.gpu}: {reason}", soft_wrap=True)
    if advice.offers:
        text = "every GPU busy all day; energy is that of the work, without GPUs that wait, hosts and cooling"
        console.print(f"  {text}", soft_wrap=True)


def _table(plan: Plan, demand: Demand, advice: Advice) -> Table:
    unit = unit_made(plan.spec.family.output)
    size = f"{plan.width_px}x{plan.height_px}"
    size += f", {plan.num_frames} frames," if plan.makes_video else ""
    wanted = f"{demand.outputs_per_day:,.0f} {unit.count} of {size} a day"
    order = "cheapest" if any(offer.cost_per_day is not None for offer in advice.offers) else "fewest GPUs"
    table = Table(
        title=f"{plan.spec.model_id}, {plan.steps} steps, {wanted}, {order} first", title_justify="left"
    )
    headings = (
        "GPU",
        "shared by",
        "s a batch",
        "90 % interval",
        "GPUs",
        "kWh a day",
        "cost a day",
        f"cost/1000 {unit.count}",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading in _LEFT else "right")
    for offer in advice.offers:
        table.add_row(*_cells(offer))
    return table


def _cells(offer: Offer) -> list[str]:
    degrees = " x ".join(f"{name} {degree}" for name, degree in offer.degrees.items() if degree > 1)
    shared = "1 GPU" if offer.gpus_per_replica == 1 else f"{offer.gpus_per_replica} GPUs: {degrees}"
    latency = offer.latency_s
    return [
        offer.gpu,
        shared,
        number(latency.value),
        f"{number(latency.low)} to {number(latency.high)}",
        f"{offer.gpus:,}",
        "-" if offer.energy_kwh_per_day is None else number(offer.energy_kwh_per_day),
        "-" if offer.cost_per_day is None else f"{offer.cost_per_day:,.2f}",
        "-" if offer.cost_per_1000_outputs is None else f"{offer.cost_per_1000_outputs:,.3f}",
    ]
