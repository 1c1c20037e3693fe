"""A process that prints the UUID of every GPU, one a line, in the order in which CUDA numbers them.

CUDA numbers the fastest GPU 0 unless CUDA_DEVICE_ORDER is PCI_BUS_ID; which one that is only its driver says.
A process of its own: a process that has asked the driver can no longer fork one that computes.
"""

from __future__ import annotations

import ctypes
import sys
import uuid

_BYTES = 16


def main() -> int:
    """Print the UUIDs; another exit code than 0 where the driver does not answer."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 1
    uuid_of = getattr(driver, "cuDeviceGetUuid_v2", None) or driver.cuDeviceGetUuid
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 1
    for number in range(count.value):
        out = (ctypes.c_ubyte * _BYTES)()
        if driver.cuDeviceGet(ctypes.byref(device), number) or uuid_of(out, device):
            return 1
        print(f"GPU-{uuid.UUID(bytes=bytes(out))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
