"""One node's reader: Zeus on exactly the GPUs that were given to it, and on the node's CPUs."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mlenergy.diffusion.environment.gpus import Gpu, nvml

_WINDOW = "mlenergy-window"
MOST_CPU_W = 3000.0  # per socket: more is no power but a wrap-around counted twice
_NO_CPU = "no RAPL counters on this machine"


@dataclass
class RawWindow:
    """What the counters said over one window. Times are of this machine's monotonic clock."""

    begin_s: float = 0.0
    end_s: float = 0.0
    gpu_j: dict[str, float] = field(default_factory=dict)  # uuid -> joules by the counter
    failure: str | None = None  # why gpu_j is empty
    cpu_j: float | None = None
    dram_j: float | None = None
    cpu_failure: str | None = None


class NodeReader:
    """Reads the counters at both ends of a window; a failure is kept, never raised into the window.

    Args:
        gpus: devices of this node to read.
        with_cpus: whether this process also reads the node's CPU packages and DRAM.
    """

    def __init__(self, gpus: Sequence[Gpu], with_cpus: bool) -> None:
        self.gpus = tuple(gpus)
        self.with_cpus = with_cpus
        self.reason: str | None = None  # why no GPU can be read
        self.cpu_reason: str | None = None  # why no CPU can be read
        self.counted: tuple[Gpu, ...] = ()  # GPUs that have a counter; the others' power is sampled
        self.windows: list[RawWindow] = []
        self._open: RawWindow | None = None
        self._gpu_monitor: Any = self._start_gpus() if gpus else None
        self._cpu_monitor: Any = self._start_cpus() if with_cpus else None

    def begin(self) -> None:
        """Open a window: CPUs first, so that the GPUs' counters are read closest to the clock."""
        window = RawWindow()
        if self._cpu_monitor is not None:
            window.cpu_failure = _begin(self._cpu_monitor)
        if self._gpu_monitor is not None:
            window.failure = _begin(self._gpu_monitor)
        window.begin_s = time.monotonic()
        self._open = window

    def end(self) -> None:
        """Close the window and keep what was read."""
        window, self._open = self._open, None
        assert window is not None, "a window is closed that was never opened"
        window.end_s = time.monotonic()
        if self._gpu_monitor is not None:
            self._read_gpus(window)
        if self._cpu_monitor is not None and window.cpu_failure is None:
            self._read_cpus(window)
        self.windows.append(window)

    def trial(self) -> str | None:
        """Read the GPUs once outside of any window; what went wrong, None where all can be read."""
        if self._gpu_monitor is None:
            return None
        failure = _begin(self._gpu_monitor)
        if failure is None:
            _, failure = _end(self._gpu_monitor)
        return failure and (self._name_the_failing() or failure)

    def _start_gpus(self) -> Any:
        """Zeus on the GPUs with a counter, None where none has one."""
        import zeus.device.gpu
        from zeus.device.gpu.common import ZeusBaseGPUError
        from zeus.monitor import ZeusMonitor

        # We look at zeros ourselves, window by window.
        warnings.filterwarnings("ignore", message="The energy consumption of one or more GPUs was measured")
        try:
            self.counted = tuple(gpu for gpu in self.gpus if _has_counter(gpu))
            if not self.counted:
                return None
            with _only(self.counted):
                # Zeus keeps one list of GPUs a process, made from CUDA_VISIBLE_DEVICES as it was then.
                zeus.device.gpu._gpus = None
                zeus.device.gpu.get_gpus()  # tells what is wrong; the monitor alone would keep silent
                return ZeusMonitor(gpu_indices=list(range(len(self.counted))), cpu_indices=[])
        except (ZeusBaseGPUError, ValueError, OSError) as error:
            self.reason = f"Zeus cannot read the GPUs: {error}"
            return None

    def _start_cpus(self) -> Any:
        """Zeus on the CPUs, None (with the reason) where their counters cannot be read."""
        from zeus.device.cpu.rapl import CONTAINER_RAPL_DIR, RAPL_DIR

        if not (os.path.exists(RAPL_DIR) or os.path.exists(CONTAINER_RAPL_DIR)):  # noqa: PTH110
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

    def _read_gpus(self, window: RawWindow) -> None:
        measured = None
        if window.failure is None:
            measured, window.failure = _end(self._gpu_monitor)
        if measured is None:
            window.failure = self._name_the_failing() or window.failure
            return
        window.gpu_j = {gpu.uuid: measured.gpu_energy[index] for index, gpu in enumerate(self.counted)}

    def _name_the_failing(self) -> str | None:
        """Zeus gives up the whole window for one bad GPU: ask each which one it was."""
        from zeus.device.exception import ZeusBaseGPUError

        for index, gpu in enumerate(self.counted):
            try:
                self._gpu_monitor.gpus.get_total_energy_consumption(index)
            except ZeusBaseGPUError as error:
                return f"GPU {gpu.index} ({gpu.uuid}) cannot be read: {error}"
        return None

    def _read_cpus(self, window: RawWindow) -> None:
        measured, window.cpu_failure = _end(self._cpu_monitor)
        if measured is None:
            return
        cpu, dram = measured.cpu_energy or {}, measured.dram_energy or {}
        most_j = MOST_CPU_W * (window.end_s - window.begin_s)
        wrong = [joules for joules in (*cpu.values(), *dram.values()) if not 0 <= joules <= most_j]
        if wrong:
            duration_s = window.end_s - window.begin_s
            window.cpu_failure = (
                f"a CPU counter wrapped around: it gave {wrong[0]:.1f} J over {duration_s:.2f} s"
            )
            return
        window.cpu_j = sum(cpu.values()) if cpu else None
        window.dram_j = sum(dram.values()) if dram else None


def _begin(monitor: Any) -> str | None:
    """Open Zeus's window; the failure's text, None where it went well."""
    try:
        monitor.begin_window(_WINDOW, sync_execution=False, restart=True)
    except Exception as error:
        # Whatever a counter does, the run goes on, and the window says what happened.
        return f"{type(error).__name__}: {error}"
    return None


def _end(monitor: Any) -> tuple[Any, str | None]:
    """Close Zeus's window; its figures, or None and the failure's text."""
    try:
        return monitor.end_window(_WINDOW, sync_execution=False), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def _has_counter(gpu: Gpu) -> bool:
    """Whether the driver counts this GPU's energy (Volta and newer, but not every virtual GPU)."""
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
            return True  # it has one, but something is wrong with it: let Zeus tell
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
