"""The process that holds GPUs at a power limit for as long as the run lives, and then restores it.

Started by path. It sets the limit through Zeus, prints "ready", and waits for its standard input
to close: the kernel closes that pipe however the run ends, SIGKILL included. Then it puts every
GPU back to the limit that it found.
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
    """Hold the limit on these GPUs (driver's indices) until standard input closes; a failure's text."""
    # Zeus counts GPUs from CUDA_VISIBLE_DEVICES.
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(indices)
    from zeus.device.gpu import get_gpus
    from zeus.device.gpu.common import ZeusBaseGPUError

    # A missing privilege is an error that we return; Zeus's warning beside it would be noise.
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
        _wait_for_close()
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


def _wait_for_close() -> None:
    """Until standard input closes, or a signal asks to end."""
    with contextlib.suppress(KeyboardInterrupt):
        while os.read(sys.stdin.fileno(), 1):
            pass


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _on_signal)
    failure = main(float(sys.argv[1]), sys.argv[2:])
    if failure is not None:
        print(failure, file=sys.stderr, flush=True)
        sys.exit(1)
