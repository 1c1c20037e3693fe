"""The devices of this machine, as far as a search needs to know them."""

from __future__ import annotations

from dataclasses import dataclass

from mlenergy.diffusion.environment.device import DeviceType, Preference, detect_device
from mlenergy.diffusion.environment.gpus import GIB, ask, list_gpus, nvml, visible_gpus
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.local import Slots, visible_gpu_ids


@dataclass(frozen=True)
class Machine:
    """The devices that a search may use."""

    device: DeviceType
    device_name: str
    processes: int  # to use at most
    gpu_memory_gib: float | None = None  # of the smallest GPU; None: not known, or no GPU


def machine_of(preference: Preference, processes: int | None, gpu_memory_gib: float | None) -> Machine:
    """The devices that a search may use.

    Args:
        preference: the run's --device.
        processes: devices at most; None: all visible GPUs, one process elsewhere.
        gpu_memory_gib: to count with; None: the GPUs' own, and not known where there are none.

    Raises:
        UserError: more processes than GPUs.
    """
    device, name = detect_device(preference)
    if device != "cuda":
        return Machine(device, name, processes or 1, gpu_memory_gib)
    available = len(visible_gpu_ids())
    if processes is not None and processes > available:
        raise UserError(f"--processes {processes}, but there are {available} GPUs; use {available} or fewer")
    count = processes or available
    return Machine(device, name, count, gpu_memory_gib or _least_gpu_memory_gib(count))


def slots_of(machine: Machine) -> Slots:
    """Places for one run at a time."""
    if machine.device == "cuda":
        return Slots(visible_gpu_ids()[: machine.processes], alone=True)
    return Slots(unnamed=machine.processes, alone=True)


def _least_gpu_memory_gib(count: int) -> float | None:
    """Memory of the smallest of the first visible GPUs; None where the driver does not report it."""
    gpus = visible_gpus(list_gpus().gpus)[:count]
    if not gpus:
        return None
    with nvml() as library:
        handles = [library.nvmlDeviceGetHandleByUUID(gpu.uuid) for gpu in gpus]
        found = [ask(library.nvmlDeviceGetMemoryInfo, handle) for handle in handles]
    known = [info.total / GIB for info in found if info is not None]
    return min(known) if len(known) == len(found) else None
