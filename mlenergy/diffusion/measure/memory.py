"""Bytes on this rank: the allocator's peaks, the driver's figure, the host's, and the parameters'."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlenergy.diffusion.measure.samples import RankMemory, WindowPart

if TYPE_CHECKING:
    import torch

NO_ALLOCATOR = "the CPU has no allocator that keeps a peak; host_rss_peak_bytes is the process's own"
NO_PEAK_ON_MPS = "torch keeps no peak of Apple's GPU; host_rss_peak_bytes is the process's own"
NO_RESET = "the peaks of the stages are unknown: this system does not let a process reset its memory mark"
_RESET_MARK = Path("/proc/self/clear_refs")


class MemoryWatch:
    """Peaks over all measured windows of one rank, and the stage that each fell in.

    The peak counter is reset where a stage begins, so that each stage has its own; the
    window's peak is the largest of them. On a CPU each stage's peak is that of the
    process's resident size (Linux, where /proc/self/clear_refs may be written); without
    a mark that can be reset no stage has a peak of its own, and none is reported.

    Args:
        device: of this rank.
        components: name -> module, whose parameters are counted.
    """

    def __init__(self, device: torch.device, components: Mapping[str, torch.nn.Module]) -> None:
        self._device = device
        self._components = components
        self._stage: WindowPart | None = None  # None: outside of a window
        self._stage_peak: dict[WindowPart, int] = {}
        self._reserved = 0
        self._host_peak = 0
        self._resets = True

    def begin_window(self) -> None:
        """Reset the peaks; call before the clock starts."""
        self._reset()
        self._stage = "other"

    def begin_stage(self, stage: WindowPart) -> None:
        """Close the stage before and open this one; nothing outside of a window."""
        if self._stage is None or stage == self._stage:
            return
        self._keep()
        self._reset()
        self._stage = stage

    def end_window(self) -> None:
        """Keep the last stage's peak; call after the clock stopped."""
        self._keep()
        self._stage = None

    def report(self, rank: int) -> RankMemory:
        """All figures of this rank; call after the last window."""
        peaks = {stage: peak for stage, peak in self._stage_peak.items() if peak > 0 and self._resets}
        peak_stage = max(peaks.items(), key=lambda item: item[1])[0] if peaks else None
        on_gpu = self._device.type == "cuda"
        no_peak = NO_PEAK_ON_MPS if self._device.type == "mps" else NO_ALLOCATOR
        reason = no_peak if self._resets else f"{no_peak}; {NO_RESET}"
        return RankMemory(
            rank=rank,
            peak_allocated_bytes=max(peaks.values()) if on_gpu and peaks else None,
            peak_reserved_bytes=self._reserved if on_gpu else None,
            driver_used_bytes=_driver_used_bytes(self._device),
            host_rss_peak_bytes=max(self._host_peak, _host_peak_bytes()),
            parameter_bytes={name: parameter_bytes(module) for name, module in self._components.items()},
            parameter_count={name: _parameter_count(module) for name, module in self._components.items()},
            peak_stage=peak_stage,
            reason=None if on_gpu else reason,
            stage_peak_bytes=peaks,
        )

    def _reset(self) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
        elif not _reset_host_peak():
            self._resets = False

    def _keep(self) -> None:
        if self._stage is None:
            return
        peak = self._peak()
        self._stage_peak[self._stage] = max(self._stage_peak.get(self._stage, 0), peak)

    def _peak(self) -> int:
        if self._device.type != "cuda":
            peak = _host_peak_bytes()
            self._host_peak = max(self._host_peak, peak)
            return peak
        import torch

        # One read for both: max_memory_allocated() and its like make and sort a list of all 100 figures each.
        stats = torch.cuda.memory_stats_as_nested_dict(self._device)
        self._reserved = max(self._reserved, stats["reserved_bytes"]["all"]["peak"])
        return int(stats["allocated_bytes"]["all"]["peak"])


def parameter_bytes(module: torch.nn.Module) -> int:
    """Bytes of a module's parameters on this rank; shared ones count once, shards by their part."""
    return sum(_tensor_bytes(parameter) for parameter in module.parameters())


def _parameter_count(module: torch.nn.Module) -> int:
    return sum(_local(parameter).numel() for parameter in module.parameters())


def _tensor_bytes(tensor: torch.Tensor) -> int:
    """Bytes stored for a tensor; a quantised one stores several inner tensors."""
    local = _local(tensor)
    flatten = getattr(local, "__tensor_flatten__", None)
    if flatten is None:
        return local.nbytes
    return sum(_tensor_bytes(getattr(local, name)) for name in flatten()[0])


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a distributed tensor, or the tensor itself."""
    to_local = getattr(tensor, "to_local", None)
    return to_local() if to_local is not None else tensor


def _driver_used_bytes(device: torch.device) -> int | None:
    """Bytes in use on the whole device, other processes' included."""
    if device.type != "cuda":
        return None
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(total - free)


def _reset_host_peak() -> bool:
    """Bring the kernel's high-water mark of the resident size to its present size, if that may be done."""
    try:
        with _RESET_MARK.open("w") as file:
            file.write("5")
    except OSError:
        # Not Linux, or not allowed: the mark is then the largest since the process began.
        return False
    return True


def _host_peak_bytes() -> int:
    """The process's largest resident size since the last reset."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else _rss_bytes()


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
