"""The NVIDIA driver held against the CUDA that torch is built for."""

from __future__ import annotations

from mlenergy.diffusion.environment.gpus import GpuList

# First driver branch that runs a CUDA of this major version, whatever its minor one ("CUDA compatibility",
# NVIDIA; the release notes of CUDA 13.0, table 2).
DRIVER_FLOORS = {11: 450, 12: 525, 13: 580}
OLDER_BUILD = "install torch's build for CUDA {major} (docs/clusters.md, The GPU driver)"


def driver_problem(cuda_build: str, listed: GpuList) -> str | None:
    """The reason why a torch of this CUDA cannot use this node's driver, with what to do; None where it can.

    Args:
        cuda_build: version of the CUDA that torch is built for, "13.0".
        listed: what the driver library says.
    """
    needed = int(cuda_build.split(".")[0])
    floor = DRIVER_FLOORS.get(needed)
    served = _major_served(listed)
    if served is None or served >= needed:
        return None
    branch = f"driver {floor} or newer" if floor else "a newer driver"
    serves = "" if listed.cuda_driver is None else f", which serves CUDA up to {listed.cuda_driver}"
    return (
        f"the installed torch is built for CUDA {cuda_build} and needs NVIDIA {branch}, but this node has "
        f"driver {listed.driver or 'of an unknown version'}{serves}; update the driver, or "
        f"{OLDER_BUILD.format(major=served)}"
    )


def _major_served(listed: GpuList) -> int | None:
    """The newest major version of CUDA that the driver serves; None where it does not tell."""
    if listed.cuda_driver is not None:
        return int(listed.cuda_driver.split(".")[0])
    branch = (listed.driver or "").split(".")[0]
    if not branch.isdigit():
        return None
    return max((major for major, floor in DRIVER_FLOORS.items() if int(branch) >= floor), default=10)
