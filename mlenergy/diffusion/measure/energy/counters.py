"""Energy counters of one node, through Zeus: of exactly the GPUs given, and of the node's CPUs."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlenergy.diffusion.environment.gpus import Gpu, nvml
from mlenergy.diffusion.measure.samples import GpuEnergy

_WINDOW = "mlenergy-window"
MOST_CPU_W = 3000.0  # per socket: a reading above it is a wrap-around that was counted twice
# Where Zeus looks (zeus/device/cpu/rapl.py). Asked here, as to import Zeus without a need takes 0.2 s.
RAPL_PLACES = ("/sys/class/powercap/intel-rapl", "/zeus_sys/class/powercap/intel-rapl")
_NO_CPU = "no RAPL counters on this machine"


@dataclass(frozen=True)
class NodeWindow:
    """One window as one reader sees it, on its own node; times are of that machine's monotonic clock.

    The counters give the joules of the GPUs that have one; ``reports.report_node`` adds what the
    samples say: joules of the others, the cross-check, further marks.
    """

    begin_s: float
    end_s: float
    gpus: tuple[GpuEnergy, ...]
    failure: str | None  # why a GPU's joules are unknown; a whole window's GPUs are unknown with it
    cpu_package_j: float | None
    dram_j: float | None
    cpu_reason: str | None  # why there are no joules of CPUs
    marks: tuple[str, ...]  # codes of warnings


class Counters:
    """Energy counters of one node's GPUs and CPUs; a failure is kept, never raised into a window.

    Args:
        node: the name that the readings carry.
        gpus: devices of this node to read.
        with_cpus: True to read the node's CPU packages and DRAM, too.
    """

    def __init__(self, node: str, gpus: Sequence[Gpu], with_cpus: bool) -> None:
        self.reason: str | None = None  # why no GPU can be read
        self.cpu_reason: str | None = None  # why no CPU can be read
        self.counted: tuple[Gpu, ...] = ()  # GPUs that have a counter; the others' power is sampled
        self.windows: list[NodeWindow] = []
        self._node = node
        self._open: tuple[float, str | None, str | None] | None = None  # begin, failures of GPUs and CPUs
        self._gpu_monitor: Any = self._start_gpus(gpus) if gpus else None
        self._cpu_monitor: Any = self._start_cpus() if with_cpus else None

    def begin(self) -> None:
        """Open a window: CPUs first, so that the GPUs' counters are read closest to the clock."""
        cpu_failure = None if self._cpu_monitor is None else _begin(self._cpu_monitor)
        gpu_failure = None if self._gpu_monitor is None else _begin(self._gpu_monitor)
        self._open = (time.monotonic(), gpu_failure, cpu_failure)

    def end(self) -> None:
        """Close the window and keep what was read: GPUs first, for the same reason."""
        assert self._open is not None, "a window is closed that was never opened"
        end_s = time.monotonic()
        (begin_s, gpu_failure, cpu_failure), self._open = self._open, None
        gpus: tuple[GpuEnergy, ...] = ()
        package_j = dram_j = None
        if self._gpu_monitor is not None:
            gpus, gpu_failure = self._read_gpus(gpu_failure)
        if self._cpu_monitor is not None and cpu_failure is None:
            package_j, dram_j, cpu_failure = self._read_cpus(end_s - begin_s)
        marks = (*(["counter_unreadable"] if gpu_failure else []), *(["cpu_counter"] if cpu_failure else []))
        cpu_reason = cpu_failure or self.cpu_reason
        self.windows.append(
            NodeWindow(begin_s, end_s, gpus, gpu_failure, package_j, dram_j, cpu_reason, marks)
        )

    def trial(self) -> str | None:
        """Read the GPUs once outside of any window; a failure's text, None where all can be read."""
        if self._gpu_monitor is None:
            return None
        failure = _begin(self._gpu_monitor)
        if failure is None:
            _, failure = _end(self._gpu_monitor)
        return failure and (self._name_the_failing() or failure)

    def _start_gpus(self, gpus: Sequence[Gpu]) -> Any:
        """Zeus on the GPUs with a counter, None where none has one."""
        import zeus.device.gpu
        from zeus.device.gpu.common import ZeusBaseGPUError
        from zeus.monitor import ZeusMonitor

        # A window without joules is judged with its length and the counter's period (counter_stood_still).
        warnings.filterwarnings("ignore", message="The energy consumption of one or more GPUs was measured")
        try:
            self.counted = tuple(gpu for gpu in gpus if _has_counter(gpu))
            if not self.counted:
                return None
            with _only(self.counted):
                # Zeus keeps one list of GPUs a process (zeus/device/gpu/__init__.py: get_gpus), made from
                # CUDA_VISIBLE_DEVICES at the first call. Whoever called before has made another one.
                zeus.device.gpu._gpus = None
                zeus.device.gpu.get_gpus()  # raises; ZeusMonitor itself would go on without GPUs
                return ZeusMonitor(gpu_indices=list(range(len(self.counted))), cpu_indices=[])
        except (ZeusBaseGPUError, ValueError, OSError) as error:
            self.reason = f"Zeus cannot read the GPUs: {error}"
            return None

    def _start_cpus(self) -> Any:
        """Zeus on the CPUs, None (with the reason) where their counters cannot be read."""
        if not any(Path(place).exists() for place in RAPL_PLACES):
            self.cpu_reason = _NO_CPU
            return None
        from zeus.device.cpu import get_cpus
        from zeus.device.exception import ZeusBaseCPUError
        from zeus.monitor import ZeusMonitor

        try:
            if not len(get_cpus()):
                self.cpu_reason = _NO_CPU
                return None
            monitor = ZeusMonitor(gpu_indices=[])
            # The first read starts Zeus's watch for wrap-arounds; it belongs before the windows.
            monitor.begin_window(_WINDOW, sync_execution=False)
            monitor.end_window(_WINDOW, sync_execution=False)
            return monitor
        except (ZeusBaseCPUError, OSError, ValueError) as error:
            self.cpu_reason = f"RAPL counters cannot be read: {error}"
            return None

    def _read_gpus(self, failure: str | None) -> tuple[tuple[GpuEnergy, ...], str | None]:
        """Joules of the counted GPUs, or none and the failure's text."""
        measured = None
        if failure is None:
            measured, failure = _end(self._gpu_monitor)
        if measured is None:
            return (), self._name_the_failing() or failure
        joules = measured.gpu_energy
        return tuple(
            GpuEnergy(self._node, gpu.uuid, gpu.name, joules[index]) for index, gpu in enumerate(self.counted)
        ), None

    def _name_the_failing(self) -> str | None:
        """The failing GPU and its error: Zeus gives up the whole window, and does not say for which GPU."""
        from zeus.device.exception import ZeusBaseGPUError

        for index, gpu in enumerate(self.counted):
            try:
                self._gpu_monitor.gpus.get_total_energy_consumption(index)
            except ZeusBaseGPUError as error:
                return f"GPU {gpu.index} ({gpu.uuid}) cannot be read: {error}"
        return None

    def _read_cpus(self, duration_s: float) -> tuple[float | None, float | None, str | None]:
        """Joules of the CPU packages and of DRAM, or none and the failure's text."""
        measured, failure = _end(self._cpu_monitor)
        if measured is None:
            return None, None, failure
        cpu, dram = measured.cpu_energy or {}, measured.dram_energy or {}
        wrong = [j for j in (*cpu.values(), *dram.values()) if not 0 <= j <= MOST_CPU_W * duration_s]
        if wrong:
            return (
                None,
                None,
                f"a CPU counter wrapped around: it gave {wrong[0]:.1f} J over {duration_s:.2f} s",
            )
        return sum(cpu.values()) if cpu else None, sum(dram.values()) if dram else None, None


def _begin(monitor: Any) -> str | None:
    """Open Zeus's window; a failure's text, or None."""
    try:
        monitor.begin_window(_WINDOW, sync_execution=False, restart=True)
    except Exception as error:
        # A counter's failure does not end the run: the window keeps the reason.
        return f"{type(error).__name__}: {error}"
    return None


def _end(monitor: Any) -> tuple[Any, str | None]:
    """Close Zeus's window; its figures, or None and the failure's text."""
    try:
        return monitor.end_window(_WINDOW, sync_execution=False), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def _has_counter(gpu: Gpu) -> bool:
    """True where the driver counts this GPU's energy (Volta and newer, but not every virtual GPU)."""
    import pynvml

    with nvml() as library:
        handle = library.nvmlDeviceGetHandleByIndex(gpu.index)
        try:
            old = library.nvmlDeviceGetArchitecture(handle) < library.NVML_DEVICE_ARCH_VOLTA
            if not old:
                library.nvmlDeviceGetTotalEnergyConsumption(handle)
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
            return False
        except pynvml.NVMLError:
            return True  # it has one, but something is wrong with it: Zeus's error says what
        return not old


@contextmanager
def _only(gpus: Sequence[Gpu]) -> Iterator[None]:
    """CUDA_VISIBLE_DEVICES as Zeus reads it: the driver's indices of these GPUs, for a moment.

    Zeus understands nothing but indices there, and the variable of this process may name
    one GPU only, or UUIDs, or slices. CUDA itself has read it before, or reads it later.
    """
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu.index) for gpu in gpus)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
