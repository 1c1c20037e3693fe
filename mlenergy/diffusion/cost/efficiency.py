"""FLOPs against measured seconds and joules: no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlenergy.diffusion.cost.flops import StageFlops

_TERA = 1e12
_TABLE = Path(__file__).parent.parent / "data" / "gpu_peaks.json"


@dataclass(frozen=True)
class Peak:
    """A GPU's dense peak for one dtype; None with a reason where no source is known."""

    tflops: float | None
    source: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Efficiency:
    """Rates by FLOPs, measured seconds and joules; None where one of them is unknown."""

    tflops_per_iteration: float
    tflops_per_gpu: float  # TFLOP/s of each GPU, mean over the window
    mfu: float | None  # tflops_per_gpu ÷ dense peak
    mfu_reason: str | None
    peak_tflops: float | None
    peak_source: str | None
    j_per_tflop: float | None
    j_per_tflop_reason: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def efficiency(
    flops: StageFlops, duration_s: float, energy_j: float | None, devices: int, device_name: str, dtype: str
) -> Efficiency:
    """Rates of one iteration.

    Args:
        flops: of the iteration.
        duration_s: its measured seconds.
        energy_j: its joules over all devices, None where they were not read.
        devices: GPUs (or CPUs) that took part.
        device_name: as the driver names it.
        dtype: of the denoiser: float32, float16, bfloat16, tfloat32 or float8.

    Raises:
        ValueError: no time or no device.
    """
    if duration_s <= 0 or devices < 1:
        raise ValueError(f"needs a duration above 0 s and a device; got {duration_s} s, {devices}")
    tflops = flops.total / _TERA
    rate = tflops / duration_s / devices
    peak = dense_peak(device_name, dtype)
    return Efficiency(
        tflops_per_iteration=tflops,
        tflops_per_gpu=rate,
        mfu=None if peak.tflops is None else rate / peak.tflops,
        mfu_reason=peak.reason,
        peak_tflops=peak.tflops,
        peak_source=peak.source,
        j_per_tflop=None if energy_j is None else energy_j / tflops,
        j_per_tflop_reason=None if energy_j is not None else "no energy was read",
    )


def dense_peak(device_name: str, dtype: str) -> Peak:
    """The dense peak of a device, by the exact name that the driver gives; never a guess."""
    row = _peaks().get(device_name)
    if row is None:
        return Peak(None, reason=f"no peak of {device_name} is known to this program")
    if dtype not in row["tflops"]:
        return Peak(None, reason=f"the vendor gives no {dtype} peak for {device_name}")
    return Peak(float(row["tflops"][dtype]), source=row["source"])


@cache
def _peaks() -> dict[str, dict[str, Any]]:
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: row for row in table["gpus"] for name in row["names"]}
