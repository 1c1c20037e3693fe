"""The NVIDIA GPUs that the driver library knows, without torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

GIB = 1 << 30


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
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order.

    As CUDA does, the list ends at the first entry that names no GPU. A MIG slice's
    entry stands for no whole GPU and ends the list, too.
    """
    wanted = environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return list(gpus)
    found: list[Gpu] = []
    for entry in wanted.split(","):
        gpu = _find(gpus, entry.strip())
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


def _find(gpus: Sequence[Gpu], entry: str) -> Gpu | None:
    """The GPU of one entry: an index, or the begin of a UUID that fits one GPU only."""
    if entry.isdigit():
        return next((gpu for gpu in gpus if gpu.index == int(entry)), None)
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
