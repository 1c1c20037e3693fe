"""Record of the machines and the source code of a run: where its numbers come from."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mlenergy.diffusion import version
from mlenergy.diffusion.environment.device import cpu_name, torch_cuda_build
from mlenergy.diffusion.environment.gpus import Gpu, ask, list_gpus, nvml
from mlenergy.diffusion.environment.redact import redact_arguments, redact_environment

PACKAGES = (
    "torch", "xfuser", "yunchang", "diffusers", "transformers", "accelerate", "safetensors", "tokenizers",
    "datasets", "zeus", "nvidia-ml-py", "triton", "flash-attn", "DistVAE", "torchao", "nvidia-nccl-cu12",
    "nvidia-nccl-cu13", "numpy", "scipy", "pyarrow", "tyro",
)  # fmt: skip
# Variables that change what runs or how fast; all others stay private.
_TELLING = re.compile(
    r"^(CUDA_|NCCL_|GLOO_|TORCH|PYTORCH_|OMP_NUM_THREADS$|MKL_NUM_THREADS$|NVIDIA_|HF_|TRANSFORMERS_|DIFFUSERS_"
    r"|XFUSER_|ZEUS|SLURM_(JOB_ID|NNODES|NTASKS|JOB_PARTITION|JOB_NODELIST)$)"
)


def environment_record(
    argv: Sequence[str],
    facts: Mapping[str, Any] | None = None,
    nodes: Sequence[Mapping[str, Any]] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """The record for results.json: plain dicts, lists, strings, numbers and None; no secret.

    Args:
        argv: the command line, program first.
        facts: what only the engine knows (``xfuser_version``), kept as given.
        nodes: every rank's ``node_record()``, gathered; None: this node alone. Ranks of
            one node count once.
        environ: the environment, of which only telling variables are kept.
    """
    return {
        "command_line": redact_arguments(argv, environ),
        "source": source_state(),
        "versions": package_versions(),
        "torch_cuda": torch_cuda_build(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "container": _container(environ),
        "environment_variables": redact_environment(environ, _TELLING),
        "engine": dict(facts or {}),
        "nodes": _once_a_node(nodes if nodes is not None else [node_record()]),
    }


def node_record() -> dict[str, Any]:
    """Host name, CPU, memory, driver and every GPU of this node, as the driver shows them."""
    import psutil

    listed = list_gpus()
    return {
        "hostname": socket.gethostname(),
        "cpu": cpu_name(),
        "cpu_cores": os.cpu_count(),
        "cpu_cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "driver": listed.driver,
        "cuda_driver": listed.cuda_driver,
        "gpus": [_gpu_state(gpu) for gpu in listed.gpus],
        "gpu_reason": listed.reason,
    }


def package_versions() -> dict[str, str | None]:
    """Installed versions of everything that can change a number; None: not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def source_state() -> dict[str, Any]:
    """Version, commit and ``dirty`` of the checkout that this package runs from.

    ``commit`` and ``dirty`` are None, with ``reason``, where there is no checkout
    (an installed wheel) or no git.
    """
    package = Path(version.__file__).resolve().parent
    commit = _git(package, "rev-parse", "HEAD")
    # A wheel inside some other repository's virtual environment is not that repository's source.
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    if commit is None or tracked is None:
        reason = "this package does not run from a git checkout"
        return {"version": version.__version__, "commit": None, "dirty": None, "reason": reason}
    changes = _git(package, "status", "--porcelain", "--untracked-files=normal", ".")
    return {
        "version": version.__version__,
        "commit": commit,
        "dirty": bool(changes),
        "reason": None,
    }


def _gpu_state(gpu: Gpu) -> dict[str, Any]:
    """Settings of one GPU that change what it costs. Powers in W, clocks in MHz, memory in bytes."""
    with nvml() as library:
        handle = library.nvmlDeviceGetHandleByIndex(gpu.index)
        limits = ask(library.nvmlDeviceGetPowerManagementLimitConstraints, handle)
        memory = ask(library.nvmlDeviceGetMemoryInfo, handle)
        persistence = ask(library.nvmlDeviceGetPersistenceMode, handle)
        return {
            "index": gpu.index,
            "name": gpu.name,
            "uuid": gpu.uuid,
            "memory_bytes": None if memory is None else int(memory.total),
            "power_limit_w": _watts(ask(library.nvmlDeviceGetPowerManagementLimit, handle)),
            "power_limit_default_w": _watts(ask(library.nvmlDeviceGetPowerManagementDefaultLimit, handle)),
            "power_limit_min_w": _watts(limits and limits[0]),
            "power_limit_max_w": _watts(limits and limits[1]),
            "persistence_mode": None if persistence is None else bool(persistence),
            "sm_clock_mhz": ask(library.nvmlDeviceGetClockInfo, handle, library.NVML_CLOCK_SM),
            "sm_clock_max_mhz": ask(library.nvmlDeviceGetMaxClockInfo, handle, library.NVML_CLOCK_SM),
            "memory_clock_mhz": ask(library.nvmlDeviceGetClockInfo, handle, library.NVML_CLOCK_MEM),
            "memory_clock_max_mhz": ask(library.nvmlDeviceGetMaxClockInfo, handle, library.NVML_CLOCK_MEM),
            "temperature_c": ask(library.nvmlDeviceGetTemperature, handle, library.NVML_TEMPERATURE_GPU),
            "mig": gpu.mig,
        }


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _once_a_node(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first record of each host name, in rank order."""
    seen: dict[str, dict[str, Any]] = {}
    for record in records:
        seen.setdefault(str(record["hostname"]), dict(record))
    return list(seen.values())


def _container(environ: Mapping[str, str]) -> str | None:
    """The kind of container that this runs in, None outside of one or where it cannot be known."""
    if "APPTAINER_CONTAINER" in environ or "SINGULARITY_CONTAINER" in environ:
        return "apptainer"
    if "ENROOT_ROOTFS" in environ:
        return "enroot"
    if Path("/.dockerenv").exists():
        return "docker"
    if Path("/run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    return environ.get("container") or None if sys.platform == "linux" else None


def _git(folder: Path, *arguments: str) -> str | None:
    """Standard output of git, None where it fails. No lock is taken, so ranks do not disturb each other."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
