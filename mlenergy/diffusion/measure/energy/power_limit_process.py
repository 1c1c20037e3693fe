"""The child that holds GPUs at a power limit for as long as the run lives, and then restores it.

Started by path. It sets the limit through Zeus, says "ready", and waits for its standard input
to close: that happens when the run ends, however it ends (also when it is killed). Then it puts
every GPU back to the limit that it found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from types import FrameType
from typing import Any

MILLIWATTS = 1000


def main(watts: float, indices: list[str]) -> str | None:
    """Hold the limit on these GPUs (driver's indices) until standard input closes; what went wrong."""
    # Zeus counts GPUs from CUDA_VISIBLE_DEVICES.
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(indices)
    from zeus.device.gpu import get_gpus
    from zeus.device.gpu.common import ZeusBaseGPUError

    # We say ourselves what is wrong when the privilege is missing.
    warnings.filterwarnings("ignore", message="You are about to call a GPU management API")
    try:
        gpus = get_gpus()
        found_mw = [gpus.get_power_management_limit(i) for i in range(len(indices))]
        for i, index in enumerate(indices):
            least_mw, most_mw = gpus.get_power_management_limit_constraints(i)
            if not least_mw <= watts * MILLIWATTS <= most_mw:
                least, most = least_mw / MILLIWATTS, most_mw / MILLIWATTS
                return f"GPU {index} allows {least:g} to {most:g} W, not {watts:g} W"
    except ZeusBaseGPUError as error:
        return str(error)
    try:
        for i in range(len(indices)):
            gpus.set_power_management_limit(i, round(watts * MILLIWATTS))
        print("ready", flush=True)
        _wait_for_the_end()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        lost = _restore(gpus, found_mw, indices)
    return lost


def _restore(gpus: Any, found_mw: list[int], indices: list[str]) -> str | None:
    """Put every GPU back; one that fails does not keep the others from it."""
    failed = []
    for i, (index, limit_mw) in enumerate(zip(indices, found_mw, strict=True)):
        try:
            gpus.set_power_management_limit(i, limit_mw)
        except Exception as error:
            failed.append(f"nvidia-smi -i {index} -pl {limit_mw / MILLIWATTS:g} ({error})")
    return f"not restored; run: {'; '.join(failed)}" if failed else None


def _wait_for_the_end() -> None:
    """Until standard input closes, or a signal asks to end."""
    with contextlib.suppress(KeyboardInterrupt):
        while os.read(sys.stdin.fileno(), 1):
            pass


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _end)
    trouble = main(float(sys.argv[1]), sys.argv[2:])
    if trouble is not None:
        print(trouble, file=sys.stderr, flush=True)
        sys.exit(1)
