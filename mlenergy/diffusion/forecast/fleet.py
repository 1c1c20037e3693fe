"""GPUs to use or buy for a number of images or videos a day: how many, at what energy, cost and latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.cost.size import size_plan, valid_plans
from mlenergy.diffusion.environment.gpus import GIB
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.cards import card_named, memory_bytes
from mlenergy.diffusion.forecast.predict import Fitted, Interval, forecast_of

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.models.spec import Output

_DAY_S = 86_400
_J_PER_KWH = 3.6e6
GPUS_PER_REPLICA = (1, 2, 4, 8)  # of one node


@dataclass(frozen=True)
class Demand:
    """What is wanted, and what it is paid with.

    Attributes:
        outputs_per_day: images or videos to be made.
        max_latency_s: seconds of one batch at most; None: any.
        gpu_hour: price of an hour of one GPU, by name; a GPU that is missing has none.
        price_kwh: price of a kWh; None: none.
    """

    outputs_per_day: float
    max_latency_s: float | None
    gpu_hour: dict[str, float]
    price_kwh: float | None


@dataclass(frozen=True)
class Offer:
    """One way to meet the demand with one kind of GPU.

    Attributes:
        gpu: short name.
        gpus_per_replica: that share one batch.
        degrees: Ulysses, ring, CFG and data degree of a replica.
        latency_s: of a batch.
        gpus: needed in all, with every one busy all day.
        energy_kwh_per_day: of the work; a GPU that waits is not in it.
        cost_per_day: of GPU hours and energy; None where a price is missing.
        cost_per_1000_outputs: the same.
    """

    gpu: str
    gpus_per_replica: int
    degrees: dict[str, int]
    latency_s: Interval
    gpus: int
    energy_kwh_per_day: float | None
    cost_per_day: float | None
    cost_per_1000_outputs: float | None
    extrapolated: tuple[str, ...]

    def as_dict(self, output: Output = "image") -> dict[str, Any]:
        """Plain values, for JSON; keys name what is made."""
        return {name.replace("output", output): value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Advice:
    """The offers, the cheapest (else the one of fewest GPUs) first, and GPUs without one, with the reason."""

    offers: tuple[Offer, ...]
    without: dict[str, str]


def advise(plan: Plan, gpus: Sequence[str], demand: Demand, fitted: Fitted | None = None) -> Advice:
    """The best offer of each GPU.

    Args:
        plan: model, size, frames, steps and batch; its degrees do not matter.
        gpus: short names.
        demand: what is wanted.
        fitted: constants; the package's own where it is None.

    Raises:
        UserError: a GPU without a data sheet.
    """
    best: list[Offer] = []
    without: dict[str, str] = {}
    for name in dict.fromkeys(card_named(gpu).name for gpu in gpus):
        offers, reason = _offers(plan, name, demand, fitted)
        if offers:
            best.append(min(offers, key=_rank))
        else:
            without[name] = reason
    return Advice(tuple(sorted(best, key=_rank)), without)


def _rank(offer: Offer) -> tuple[float, int, float]:
    cost = math.inf if offer.cost_per_day is None else offer.cost_per_day
    return cost, offer.gpus, offer.latency_s.value


def _offers(plan: Plan, gpu: str, demand: Demand, fitted: Fitted | None) -> tuple[list[Offer], str]:
    """Every way that fits and is fast enough; and the reason against the first one that is not."""
    offers: list[Offer] = []
    reasons: list[str] = []
    for count in GPUS_PER_REPLICA:
        for way in valid_plans(plan, count):
            try:
                offers.append(_offer(way, gpu, count, demand, fitted))
            except UserError as error:
                reasons.append(str(error))
    return offers, reasons[0] if reasons else "no way to share the work is offered for this model"


def _offer(way: Plan, gpu: str, count: int, demand: Demand, fitted: Fitted | None) -> Offer:
    """One way to share the work.

    Raises:
        UserError: it does not fit, is too slow, or no forecast can be made of it.
    """
    gib = memory_bytes(gpu) / GIB
    if size_plan(way, processes=1, gpu_memory_gib=gib).own.memory.fits is False:
        raise UserError(f"it does not fit into {gib:.0f} GiB")
    found = forecast_of(way, gpu, fitted)
    if demand.max_latency_s is not None and found.duration_s.value > demand.max_latency_s:
        raise UserError(f"a batch takes more than {demand.max_latency_s:g} s")
    replicas = math.ceil(demand.outputs_per_day * found.duration_s.value / (_DAY_S * way.batch_size))
    joules = found.energy_per_output_j
    kwh = None if joules is None else joules.value * demand.outputs_per_day / _J_PER_KWH
    cost = _cost(gpu, replicas * count, kwh, demand)
    parallel = way.parallel
    return Offer(
        gpu=gpu,
        gpus_per_replica=count,
        degrees={mode: getattr(parallel, mode) for mode in ("ulysses", "ring", "cfg", "data")},
        latency_s=found.duration_s,
        gpus=replicas * count,
        energy_kwh_per_day=kwh,
        cost_per_day=cost,
        cost_per_1000_outputs=None if cost is None else 1000 * cost / demand.outputs_per_day,
        extrapolated=found.extrapolated,
    )


def _cost(gpu: str, gpus: int, kwh: float | None, demand: Demand) -> float | None:
    """Of a day; hours and energy where both have a price, else the one that has."""
    hour, price = demand.gpu_hour.get(gpu), demand.price_kwh
    if (hour is None and (demand.gpu_hour or price is None)) or (price is not None and kwh is None):
        return None
    return (0 if hour is None else 24 * gpus * hour) + (0 if price is None or kwh is None else price * kwh)
