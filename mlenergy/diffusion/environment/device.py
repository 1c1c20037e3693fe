"""The device that a run takes, found without importing torch."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlenergy.diffusion.environment.driver import driver_problem
from mlenergy.diffusion.environment.gpus import ask, list_gpus, nvml, used_gpu, visible_gpus
from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    import torch

DeviceType = Literal["cuda", "mps", "cpu"]
Preference = Literal["auto", "cuda", "mps", "cpu"]
_WITHOUT_GPU = "; --device cpu runs without the GPU"


def detect_device(preference: Preference = "auto") -> tuple[DeviceType, str]:
    """The device type and the name of the first device that this process may use.

    ``auto`` takes CUDA where this torch is built for it and the driver shows a GPU,
    then Apple's GPU, then the CPU.

    Raises:
        UserError: the preferred device cannot be used here, or ``auto`` finds a GPU that this torch cannot
            use with this driver: a run for it must not measure the CPU instead.
    """
    if preference in ("auto", "cuda"):
        name, reason = _cuda_name()
        if name is not None:
            return "cuda", name
        if preference == "cuda":
            raise UserError(f"no CUDA device can be used: {reason}; use --device cpu, or fix this first")
    if preference in ("auto", "mps"):
        if _has_mps():
            return "mps", cpu_name()
        if preference == "mps":
            raise UserError("no Apple GPU can be used: this is not macOS on Apple silicon; use --device cpu")
    return "cpu", cpu_name()


def unused_gpu(preference: Preference, device: DeviceType) -> str | None:
    """A warning where ``auto`` has taken the CPU beside a GPU, as this torch is built without CUDA."""
    if preference != "auto" or device != "cpu" or torch_cuda_build() is not None:
        return None
    visible = visible_gpus(list_gpus().gpus)
    if not visible:
        return None
    return (
        f"this node has {visible[0].name}, but the installed torch is a CPU build, so this run measures the "
        "CPU; install torch's CUDA build, or choose --device cpu"
    )


def check_device_name(planned: str, device: torch.device) -> None:
    """Refuse a plan that was made for another product than the one that this process computes on.

    Names of folders and results, and peaks, are the plan's. They are found without torch, by asking CUDA for
    its order; this holds them against the device itself, by its UUID.

    Raises:
        UserError: another GPU than the one that was planned for.
    """
    gpu = used_gpu(device)
    if gpu is not None and gpu.name != planned:
        raise UserError(
            f"the plan is for {planned}, and this process computes on {gpu.name} ({gpu.uuid}); set "
            f"CUDA_VISIBLE_DEVICES={gpu.uuid}, or CUDA_DEVICE_ORDER=PCI_BUS_ID to count as nvidia-smi does"
        )


def torch_cuda_build() -> str | None:
    """The CUDA version that the installed torch is built for; None for a CPU build."""
    return _torch_build("cuda")


def cpu_name() -> str:
    """The processor's model name, "unknown CPU" where the system does not tell."""
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return (
            subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown CPU"
        )
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or "unknown CPU"


def _cuda_name() -> tuple[str | None, str]:
    """Name of the first GPU that CUDA would take, or None and why."""
    build = torch_cuda_build()
    if build is None:
        return None, "the installed torch is not a CUDA build"
    listed = list_gpus()
    if listed.is_stale and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        raise UserError(
            f"{listed.reason}: the driver was updated while the old one was loaded; reboot, or reload its "
            f"kernel module{_WITHOUT_GPU}"
        )
    if not listed.gpus:
        return None, listed.reason or "the driver finds no GPU"
    visible = visible_gpus(listed.gpus)
    name = visible[0].name if visible else _mig_name()
    if name is None:
        return None, "CUDA_VISIBLE_DEVICES leaves no GPU"
    if (problem := driver_problem(build, listed)) is not None:
        raise UserError(f"{problem}{_WITHOUT_GPU}")
    return name, ""


def _mig_name() -> str | None:
    """Name of the MIG slice that CUDA_VISIBLE_DEVICES names first, if it does."""
    entry = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if not entry.startswith("MIG-"):
        return None
    with nvml() as library:
        handle = ask(library.nvmlDeviceGetHandleByUUID, entry)
        name = None if handle is None else ask(library.nvmlDeviceGetName, handle)
    return None if name is None else str(name)


def _torch_build(kind: str) -> str | None:
    """A line of torch/version.py, read as text: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text()
    except OSError:
        return None
    found = re.search(rf"^{kind}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return found.group(1) if found else None


def _has_mps() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"
