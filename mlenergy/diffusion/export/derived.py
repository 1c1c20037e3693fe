"""Figures that follow from those of a result: watt-hours, money, energy-delay product."""

from __future__ import annotations

from dataclasses import dataclass

from mlenergy.diffusion.results.record import ResultRecord
from mlenergy.diffusion.results.units import UNITS

J_PER_WH = 3600.0
J_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Prices:
    """Prices that the user pays; None: not given, and then nothing is computed from it."""

    usd_per_gpu_hour: float | None = None
    usd_per_kwh: float | None = None


def derived(record: ResultRecord, prices: Prices) -> dict[str, float | None]:
    """Figures of a complete result by name, with the unit in it; None where a part is not known.

    Images and videos have names of their own; those of the other are None. The energy-delay product is that
    of Gonzalez and Horowitz (1996), energy times delay, here joules of one image or video times seconds of
    the iteration that makes it. GPU money is rent: GPUs x hours x price; electricity
    is that of the GPUs alone, without the host and the cooling.
    """
    unit, energy_j, duration_s = record.counted, record.energy_mean_j, window_s(record)
    on_gpu = record.device == "cuda" and record.processes is not None
    gpu_hours = None if not on_gpu else _product(record.processes, record.time_mean_s, 1000 / 3600)
    known = {
        "energy_per_1000_{unit}s_wh": _product(energy_j, 1000 / J_PER_WH),
        "energy_delay_per_{unit}_j_s": _product(energy_j, duration_s),
        "gpu_cost_per_1000_{unit}s_usd": _product(gpu_hours, prices.usd_per_gpu_hour),
        "electricity_cost_per_1000_{unit}s_usd": _product(energy_j, 1000 / J_PER_KWH, prices.usd_per_kwh),
    }
    return {
        name.format(unit=one.name): value if one == unit else None
        for one in UNITS
        for name, value in known.items()
    }


def window_s(record: ResultRecord) -> float | None:
    """Mean seconds of a measured iteration."""
    if record.generation_time_s is None or not record.iterations_count:
        return None
    return record.generation_time_s / record.iterations_count


def _product(*factors: float | None) -> float | None:
    result = 1.0
    for factor in factors:
        if factor is None:
            return None
        result *= factor
    return result
