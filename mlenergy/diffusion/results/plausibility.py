"""Numbers that cannot be: each bound in one table, each with a warning's code. Pure: looks at a result alone.

docs/results.md lists the codes. A comparison of results reads `DOUBTFUL`: a result with one of these codes
holds a number that is wrong, or that says nothing, and never stands beside others without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Result = Mapping[str, Any]

POWER_OVER_LIMIT = 1.2  # a board may pass its limit for moments, never by a fifth in the mean
# NVIDIA gives the readings of its boards' power as true within 5 % (nvmlDeviceGetPowerUsage).
POWER_UNDER_IDLE = 0.95
LEAST_WINDOW_S = 1e-4  # a pipeline of a text encoder, a denoiser and a decoder takes longer on any machine
STAGES_OVER_WINDOW = 0.02  # stages are timed by another clock than windows


def implausible(result: Result) -> list[dict[str, str]]:
    """Entries for the result's `warnings`: one a code, naming the first number that cannot be."""
    found = []
    for code, figures in _BOUNDS.items():
        first = next(figures(result), None)
        if first is not None:
            found.append({"code": code, "message": f"{first}: it cannot be, so do not quote it; see {_DOCS}"})
    return found


def doubts(result: Result) -> list[dict[str, str]]:
    """Those of a result's warnings that make its numbers unfit for a comparison."""
    return [dict(warning) for warning in result["warnings"] if warning["code"] in DOUBTFUL]


def _above_peak(result: Result) -> Iterator[str]:
    work = result.get("efficiency") or {}
    rate, peak = work.get("tflops_per_gpu"), work.get("peak_tflops")
    if rate is not None and peak is not None and rate > peak:
        yield f"{rate:.4g} TFLOP/s on a GPU whose {work['peak_dtype']} peak is {peak:.4g}"


def _above_memory(result: Result) -> Iterator[str]:
    there = _gpus_there(result)
    sizes = {uuid: gpu["memory_bytes"] for uuid, gpu in there.items() if gpu.get("memory_bytes")}
    if not sizes or result["configuration"]["device"] != "cuda":
        return
    used = result["environment"].get("devices", [])
    for rank in result["memory"]["ranks"]:
        device = used[rank["rank"]] if rank["rank"] < len(used) else None
        # A rank whose GPU is not known is held against the largest.
        size = sizes.get(device["uuid"] if device else "", max(sizes.values()))
        for name in ("peak_allocated_bytes", "peak_reserved_bytes", "driver_used_bytes"):
            if rank[name] is not None and rank[name] > size:
                held = f"{name} {rank[name] / 1e9:.4g} GB on rank {rank['rank']}"
                yield f"{held}, whose GPU has {size / 1e9:.4g}"


def _above_power_limit(result: Result) -> Iterator[str]:
    there = _gpus_there(result)
    for gpu, power_w in _powers_w(result):
        limit_w = gpu["power_limit_w"] or there.get(gpu["uuid"], {}).get("power_limit_w")
        if limit_w is not None and power_w > POWER_OVER_LIMIT * limit_w:
            yield f"{power_w:.4g} W in the mean on {gpu['uuid']}, whose limit is {limit_w:.4g} W"


def _below_idle_power(result: Result) -> Iterator[str]:
    for gpu, power_w in _powers_w(result):
        idle_w = gpu["idle_power_w"] or 0.0
        if power_w <= 0 or power_w < POWER_UNDER_IDLE * idle_w:
            yield f"{power_w:.4g} W in the mean on {gpu['uuid']}, which draws {idle_w:.4g} W idle"


def _no_time(result: Result) -> Iterator[str]:
    for iteration in result["iterations"]:
        if iteration["duration_s"] < LEAST_WINDOW_S:
            yield f"window {iteration['index']} took {iteration['duration_s']:.3g} s"


def _stages_exceed_window(result: Result) -> Iterator[str]:
    for iteration in result["iterations"]:
        other_s = (iteration["stages"] or {}).get("other_s") or 0.0
        if other_s < -STAGES_OVER_WINDOW * iteration["duration_s"]:
            yield f"the stages of window {iteration['index']} are {-other_s:.3g} s longer than the window"


def _powers_w(result: Result) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Each GPU that was read, with its mean power over all windows."""
    for gpu in result["energy_measurement"]["gpus"]:
        yield gpu, gpu["energy_j"] / result["generation_time"]


def _gpus_there(result: Result) -> dict[str, Mapping[str, Any]]:
    """UUID -> what the environment record says of the GPU."""
    nodes = result["environment"].get("nodes", [])
    return {gpu["uuid"]: gpu for node in nodes for gpu in node.get("gpus", [])}


_DOCS = "docs/results.md#warnings"
# Code -> the numbers of a result that cannot be, as text.
_BOUNDS: Mapping[str, Callable[[Result], Iterator[str]]] = {
    "above_peak_flops": _above_peak,
    "above_device_memory": _above_memory,
    "above_power_limit": _above_power_limit,
    "below_idle_power": _below_idle_power,
    "no_time": _no_time,
    "stages_exceed_window": _stages_exceed_window,
}
IMPLAUSIBLE = frozenset(_BOUNDS)
# Beside what cannot be: a broken computation, joules that two readings disagree on, a mean that says nothing,
# a GPU that another run used too.
DOUBTFUL = IMPLAUSIBLE | {"images_not_finite", "power_mismatch", "wide_interval", "shared_gpu"}
