"""The NVIDIA GPUs that the driver library knows, without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

GIB = 1 << 30
_CUDA_PATIENCE_S = 60  # a driver that loads for the first time after a start takes several seconds


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver counts it: ``index`` is nvidia-smi's, not CUDA's."""

    index: int
    uuid: str
    name: str
    mig: bool = False  # split into slices, which have no energy counter of their own


@dataclass(frozen=True)
class GpuList:
    """All GPUs of this node, or none and why."""

    gpus: tuple[Gpu, ...]
    reason: str | None = None
    driver: str | None = None  # version of the kernel driver
    cuda_driver: str | None = None  # newest CUDA that the driver serves, "12.8"
    is_stale: bool = False  # the loaded kernel driver is not the installed one, so that no GPU can be used


@contextmanager
def nvml() -> Iterator[Any]:
    """The driver library, initialised, as nvidia-ml-py's module.

    Raises:
        pynvml.NVMLError: there is no driver library, or it does not start.
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def list_gpus() -> GpuList:
    """Every GPU that the driver shows to this process, whatever CUDA_VISIBLE_DEVICES says."""
    import pynvml

    try:
        with nvml() as library:
            gpus = tuple(_describe(library, index) for index in range(library.nvmlDeviceGetCount()))
            driver = ask(library.nvmlSystemGetDriverVersion)
            return GpuList(
                gpus,
                None if gpus else "the driver finds no GPU",
                driver=None if driver is None else str(driver),
                cuda_driver=_cuda_driver(library),
            )
    except pynvml.NVMLError as error:
        stale = error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
        return GpuList((), f"the NVIDIA driver library gives no GPUs: {error}", is_stale=stale)


def visible_gpus(gpus: Sequence[Gpu], environ: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in the order in which CUDA, and torch, then number them.

    As CUDA does, the list ends at the first entry that names no GPU. A MIG slice's
    entry stands for no whole GPU and ends the list, too.
    """
    wanted, numbered = environ.get("CUDA_VISIBLE_DEVICES"), None
    if wanted is None:
        return _as_cuda_numbers(gpus, environ)
    found: list[Gpu] = []
    for entry in wanted.split(","):
        name = entry.strip()
        if name.isdigit():
            numbered = _as_cuda_numbers(gpus, environ) if numbered is None else numbered
            gpu = numbered[int(name)] if int(name) < len(numbered) else None
        else:
            gpu = _named(gpus, name)
        if gpu is None:
            break
        found.append(gpu)
    return found


def ask(query: Callable[..., Any], *arguments: Any) -> Any:
    """The driver's answer, or None where it gives no such figure."""
    import pynvml

    try:
        return query(*arguments)
    except pynvml.NVMLError:
        return None


def _as_cuda_numbers(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[Gpu]:
    """All GPUs in the order of CUDA's numbers, before CUDA_VISIBLE_DEVICES.

    The driver library counts along the PCI bus, CUDA from the fastest GPU on; equal ones are called alike in
    either order. Where CUDA does not answer, the bus has to do: a run holds it against `used_gpu`.
    """
    if len({gpu.name for gpu in gpus}) < 2 or environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return list(gpus)
    places = {uuid: place for place, uuid in enumerate(_cuda_uuids())}
    return sorted(gpus, key=lambda gpu: (places.get(gpu.uuid, len(places)), gpu.index))


@cache
def _cuda_uuids() -> tuple[str, ...]:
    """UUIDs in CUDA's order, asked once; none where CUDA does not answer."""
    environment = {name: text for name, text in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-m", "mlenergy.diffusion.environment.cuda_order"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_CUDA_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(done.stdout.split()) if done.returncode == 0 else ()


def used_uuid(device: torch.device) -> str:
    """UUID of the CUDA device that torch computes on, as the driver library writes it."""
    import torch

    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def used_gpu(device: torch.device) -> Gpu | None:
    """The GPU that torch computes on, by its UUID; None elsewhere, on a slice, or where none is shown."""
    if device.type != "cuda":
        return None
    uuid = used_uuid(device)
    return next((gpu for gpu in list_gpus().gpus if gpu.uuid == uuid), None)


def _named(gpus: Sequence[Gpu], entry: str) -> Gpu | None:
    """The GPU that an entry names: the begin of a UUID that fits one GPU only."""
    fitting = [gpu for gpu in gpus if entry.startswith("GPU-") and gpu.uuid.startswith(entry)]
    return fitting[0] if len(fitting) == 1 else None


def _describe(library: Any, index: int) -> Gpu:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    mode = ask(library.nvmlDeviceGetMigMode, handle)
    return Gpu(
        index=index,
        uuid=str(library.nvmlDeviceGetUUID(handle)),
        name=str(library.nvmlDeviceGetName(handle)),
        mig=mode is not None and mode[0] == library.NVML_DEVICE_MIG_ENABLE,
    )


def _cuda_driver(library: Any) -> str | None:
    number = ask(library.nvmlSystemGetCudaDriverVersion)
    return None if number is None else f"{number // 1000}.{number % 1000 // 10}"
