"""Build the driver double, point a process at it, and know the truth that it tells."""

from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml_double.c")
LIBRARY = "libnvidia-ml.so.1"
CUDA_LIBRARY = "libcuda.so.1"


def build(folder: Path) -> Path:
    """Compile the double into a folder that LD_LIBRARY_PATH can name.

    Raises:
        RuntimeError: gcc is missing or finds a mistake.
    """
    return _compile(folder, LIBRARY, SOURCE)


def build_cuda(folder: Path) -> Path:
    """Compile the double of CUDA's driver library, which numbers devices in an order of its own.

    Raises:
        RuntimeError: gcc is missing or finds a mistake.
    """
    return _compile(folder, CUDA_LIBRARY, SOURCE.with_name("cuda_double.c"))


def _compile(folder: Path, library: str, source: Path) -> Path:
    command = [
        *("gcc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
        *(f"-Wl,-soname,{library}", "-o", str(folder / library), str(source), "-lm"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the driver double does not compile:\n{done.stderr}")
    return folder


def environment(folder: Path, **controls: object) -> dict[str, str]:
    """This process's environment with the double in front; ``power="const:300"`` is NVML_DOUBLE_POWER."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("NVML_DOUBLE_", "CUDA_"))
    }
    clean["LD_LIBRARY_PATH"] = f"{folder}:{clean.get('LD_LIBRARY_PATH', '')}".rstrip(":")
    return {**clean, **double_controls(**controls)}


def double_controls(**controls: object) -> dict[str, str]:
    """The double's environment variables."""
    return {f"NVML_DOUBLE_{name.upper()}": str(value) for name, value in controls.items()}


def uuid(gpu: int, begin: str = "aaaa") -> str:
    """The UUID of one of the double's GPUs."""
    return f"GPU-{begin}0000-0000-0000-0000-{gpu:012d}"


def true_energy_j(power: str, begin_s: float, end_s: float) -> float:
    """Joules of one GPU between two moments of the monotonic clock: the double's formula, written again."""
    kind, *numbers = power.split(":")
    if kind == "const":
        return float(numbers[0]) * (end_s - begin_s)
    low, high, period, duty, phase = (*map(float, numbers), 0.0)[:5]

    def up_to(t: float) -> float:
        whole, rest = divmod(t + phase, period)
        high_s = duty * period
        return whole * (high * high_s + low * (period - high_s)) + (
            high * rest if rest < high_s else high * high_s + low * (rest - high_s)
        )

    joules = up_to(end_s) - up_to(begin_s)
    assert math.isfinite(joules)
    return joules
