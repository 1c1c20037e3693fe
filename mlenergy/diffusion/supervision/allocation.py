"""Failed allocations, by exception type and text: libraries report most of them as plain RuntimeErrors."""

from __future__ import annotations

import errno
import re
import sys
from typing import Literal

Memory = Literal["gpu", "host"]

# Types that libraries raise; others (a mistake of the user's, a ValueError that quotes a prompt) may hold the
# same words. torch's AcceleratorError, DistBackendError and OutOfMemoryError are RuntimeErrors.
_TYPES = (RuntimeError, MemoryError, OSError)

_GPU = re.compile(
    "|".join(
        (
            r"\b(?:CUDA|HIP) out of memory\b",  # torch's allocator, quoted by a compiler's own exception
            r"\b(?:CUDA|HIP)(?: driver)? error: out of memory\b",  # a call of the CUDA runtime or driver
            r"\bTriton Error \[(?:CUDA|HIP)\]: out of memory\b",
            r"\b(?:CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|hipErrorOutOfMemory)\b",
            r"\b(?:CUBLAS|CUBLASLT|CUDNN|CUSPARSE|CUSPARSELT|CUSOLVER|CURAND|HIPBLAS)_STATUS_ALLOC_FAILED\b",
            r"\b(?:CUFFT|NVJPEG_STATUS)_ALLOC\w*_FAILED\b|\bCURAND_STATUS_ALLOCATION_FAILED\b",
            r"\bCUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED\b",
            r"\b(?:Cuda|HIP) failure (?:\d+ )?'out of memory'",  # NCCL and RCCL
        )
    )
)
_HOST = re.compile(
    "|".join(
        (
            r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)",
            r"\bCannot allocate memory\b",  # strerror of ENOMEM, in the words of a library
            r"\bstd::bad_alloc\b",
            r"\bCUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED\b",
        )
    )
)


def failed_allocation(error: BaseException) -> Memory | None:
    """Whose memory ran out; None for any other error.

    Where one exception was raised from another, as compilers do, the first cause is asked too.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        found = _of(one)
        if found is not None:
            return found
        one = one.__cause__
    return None


def _of(error: BaseException) -> Memory | None:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return "gpu"
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "host"
    if not isinstance(error, _TYPES):
        return None
    text = " ".join(str(error).split())
    if _GPU.search(text):
        return "gpu"
    return "host" if _HOST.search(text) else None
