"""`mlenergy doctor`: the state of this machine, and advice on what to fix."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from mlenergy.diffusion.environment.device import torch_cuda_build
from mlenergy.diffusion.environment.driver import driver_problem
from mlenergy.diffusion.environment.gpus import GIB, list_gpus

State = Literal["ok", "note", "fix"]
_COLOURS = {"ok": "green", "note": "yellow", "fix": "red"}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table. `fix` is for what keeps runs from working at all."""

    what: str
    state: State
    finding: str
    advice: str = ""


def doctor() -> int:
    """Print the table. Returns 1 where something has to be fixed before anything runs, else 0."""
    table = Table(title="mlenergy doctor", title_justify="left")
    for heading in ("check", "state", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    worst = 0
    for check in (_python, _packages, _driver, _torch, _backends, _energy_counters, _rapl, _hub, _cache):
        for found in check():
            worst = max(worst, found.state == "fix")
            colour = _COLOURS[found.state]
            table.add_row(found.what, f"[{colour}]{found.state}[/]", found.finding, found.advice)
    # Piped output has no width of its own: wide enough that no advice is broken into single words.
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return int(worst)


def _python() -> Iterator[Finding]:
    fits = (3, 11) <= sys.version_info < (3, 14)
    advice = "" if fits else "use Python 3.11, 3.12 or 3.13"
    yield Finding("Python", "ok" if fits else "fix", platform.python_version(), advice)


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for line in metadata.requires("mlenergy-diffusion") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            have = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield Finding(wanted.name, "fix", "not installed", f"pip install '{wanted}'")
            continue
        fits = wanted.specifier.contains(have.split("+")[0], prereleases=True)
        yield Finding(wanted.name, "ok" if fits else "fix", have, "" if fits else f"pip install '{wanted}'")
    try:
        yield Finding("flash-attn (optional)", "ok", metadata.version("flash-attn"))
    except metadata.PackageNotFoundError:
        yield Finding("flash-attn (optional)", "note", "not installed", "torch's own attention is used")


def _driver() -> Iterator[Finding]:
    build, listed = torch_cuda_build(), list_gpus()
    if listed.driver is not None:
        serves = "" if listed.cuda_driver is None else f", serves CUDA up to {listed.cuda_driver}"
        problem = None if build is None else driver_problem(build, listed)
        found = (
            f"{listed.driver}{serves}; torch is built for {'the CPU' if build is None else f'CUDA {build}'}"
        )
        yield Finding("GPU driver", "ok" if problem is None else "fix", found, problem or "")
    elif listed.is_stale:
        yield Finding("GPU driver", "fix", listed.reason or "", "reboot, or reload the kernel module")


def _torch() -> Iterator[Finding]:
    import torch

    if torch.version.cuda is None:
        yield Finding(
            "GPUs", "note", "torch is a CPU build", "runs go to the CPU; install torch's CUDA build for GPUs"
        )
        return
    with warnings.catch_warnings(record=True) as caught:  # torch tells the reason as a warning
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if not available:
        reason = "; ".join(" ".join(str(warning.message).split()) for warning in caught)
        yield Finding(
            "GPUs",
            "fix",
            f"CUDA {torch.version.cuda}, no usable GPU{reason and f': {reason}'}",
            "check nvidia-smi and CUDA_VISIBLE_DEVICES",
        )
        return
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        found = f"{gpu.name}, {gpu.total_memory / GIB:.1f} GiB"
        try:
            torch.ones(1, device=torch.device("cuda", index)).add(1).item()
        except RuntimeError as error:  # no kernels for this GPU, another program's exclusive use
            built = ", ".join(torch.cuda.get_arch_list())
            advice = f"torch is built for {built}; this GPU is sm_{gpu.major}{gpu.minor}"
            yield Finding(f"GPU {index}", "fix", f"{found}: {str(error).splitlines()[0]}", advice)
        else:
            yield Finding(f"GPU {index}", "ok", found)


def _backends() -> Iterator[Finding]:
    import torch
    import torch.distributed as dist

    gloo = dist.is_available() and dist.is_gloo_available()
    yield Finding(
        "gloo",
        "ok" if gloo else "fix",
        "available" if gloo else "missing",
        "" if gloo else "reinstall torch",
    )
    if torch.version.cuda is not None:
        nccl = dist.is_nccl_available()
        advice = "" if nccl else "several GPUs need it: install torch's CUDA build for Linux"
        yield Finding("NCCL", "ok" if nccl else "fix", "available" if nccl else "missing", advice)


def _energy_counters() -> Iterator[Finding]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield Finding("NVML", "note", str(error), "GPU energy will be null; it needs the NVIDIA driver")
        return
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            yield _energy_counter(pynvml.nvmlDeviceGetHandleByIndex(index), index, pynvml)
    finally:
        pynvml.nvmlShutdown()


def _energy_counter(handle: object, index: int, pynvml: object) -> Finding:
    name = pynvml.nvmlDeviceGetName(handle)  # type: ignore[attr-defined]
    try:
        joules = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000  # type: ignore[attr-defined]
    except pynvml.NVMLError as error:  # type: ignore[attr-defined]
        return Finding(f"energy of GPU {index}", "note", f"{name}: {error}", "its energy will be null")
    return Finding(f"energy of GPU {index}", "ok", f"{name}: counter at {joules:.0f} J")


def _rapl() -> Iterator[Finding]:
    zones = sorted(Path("/sys/class/powercap").glob("intel-rapl:*/energy_uj"))
    if not zones:
        yield Finding(
            "RAPL", "note", "no powercap zones", "CPU energy will be null; virtual machines rarely have it"
        )
    elif not all(os.access(zone, os.R_OK) for zone in zones):
        yield Finding(
            "RAPL", "note", "energy_uj is not readable", f"chmod a+r {zones[0].parent}/energy_uj, as root"
        )
    else:
        yield Finding("RAPL", "ok", f"{len(zones)} zones")


def _hub() -> Iterator[Finding]:
    from huggingface_hub import constants, get_token

    token = get_token()
    advice = (
        ""
        if token
        else "gated models (FLUX.1, SD3) need it: accept the licence on the hub, then set HF_TOKEN"
    )
    yield Finding("hub token", "ok" if token else "note", "present" if token else "none", advice)
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "note", "HF_HUB_OFFLINE is set", "only models in the cache load")


def _cache() -> Iterator[Finding]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_gib = shutil.disk_usage(existing).free / GIB
    if not os.access(existing, os.W_OK):
        yield Finding("hub cache", "fix", f"{folder} is not writable", "set HF_HOME to a folder that is")
    else:
        enough = free_gib > 40
        advice = "" if enough else "FLUX.1-dev takes 34 GB; set HF_HOME to a larger disk"
        yield Finding("hub cache", "ok" if enough else "note", f"{folder}, {free_gib:.0f} GiB free", advice)
