"""What the GPUs draw while nothing runs on them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.measure.energy.sampler import Sampler
from mlenergy.diffusion.measure.samples import EnergyReading


def idle_power_w(gpus: Sequence[Gpu], duration_s: float, period_s: float) -> dict[str, float]:
    """Mean power in W of each GPU over a while; a GPU that gives no power is left out."""
    if not gpus:
        return {}
    sampler = Sampler([gpu.index for gpu in gpus], period_s)
    if sampler.start() is not None:
        return {}
    time.sleep(duration_s)
    tracks = sampler.stop()
    means: dict[str, float] = {}
    for gpu in gpus:
        samples = tracks[gpu.index].samples if gpu.index in tracks else []
        powers = [sample.power_w for sample in samples if sample.power_w is not None]
        if powers:
            means[gpu.uuid] = statistics.fmean(powers)
    return means


def above_idle_j(reading: EnergyReading, idle_w: Mapping[str, float], duration_s: float) -> float | None:
    """A window's joules less what its GPUs draw idle in that time; None where either is unknown."""
    total_j = reading.gpu_energy_j
    if total_j is None or any(gpu.uuid not in idle_w for gpu in reading.gpus):
        return None
    return total_j - sum(idle_w[gpu.uuid] * duration_s for gpu in reading.gpus)
