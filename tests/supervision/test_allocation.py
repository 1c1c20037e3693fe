"""Allocations that failed, by the words of the libraries, and errors that look like one and are none."""

import errno

import numpy as np
import pytest
import torch
from result_samples import make_plan

from mlenergy.diffusion.errors import CheckError, UserError
from mlenergy.diffusion.supervision.allocation import failed_allocation
from mlenergy.diffusion.supervision.oom_killer import Kills
from mlenergy.diffusion.supervision.out_of_memory import explain_memory

NCCL = (
    "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled cuda error (run with NCCL_DEBUG=INFO for details), "
    "NCCL version 2.27.5\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
)


def chained(error, cause):
    error.__cause__ = cause
    return error


GPU = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later", 2),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("HIP error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    torch.distributed.DistBackendError(NCCL + "Cuda failure 2 'out of memory'"),
    torch.distributed.DistBackendError(NCCL + "Cuda failure 'out of memory'"),
    RuntimeError("backend='inductor' raised: OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB"),
    chained(RuntimeError("lowering failed"), torch.OutOfMemoryError("CUDA out of memory.")),
]
HOST = [
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype(float)),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("unable to mmap 9802 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("std::bad_alloc"),
    torch.distributed.DistBackendError(
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed.\nLast error:\n"
        "Error while creating shared memory segment /dev/shm/nccl-x: Cannot allocate memory"
    ),
]
OTHER = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_MAPPING_ERROR"),
    RuntimeError("index 7 is out of bounds; the memory of tensors must be contiguous"),
    RuntimeError("out of resource: shared memory, Required: 262144, Hardware limit: 232448"),
    torch.distributed.DistBackendError(NCCL + "Cuda failure 700 'an illegal memory access was encountered'"),
    ValueError("the prompt 'a robot that ran out of memory, CUDA out of memory' is too long"),
    OSError(errno.ENOSPC, "No space left on device"),
    KeyError("CUDA error: out of memory"),
    UserError("out of memory on NVIDIA H200 of rank 1 while measuring: CUDA out of memory"),
]


@pytest.mark.parametrize(
    ("error", "kind"),
    [*((e, "gpu") for e in GPU), *((e, "host") for e in HOST), *((e, None) for e in OTHER)],
    ids=lambda one: f"{type(one).__name__}: {str(one)[:40]}" if isinstance(one, BaseException) else str(one),
)
def test_a_failed_allocation_is_told_by_its_words(error, kind):
    assert failed_allocation(error) == kind


@pytest.mark.parametrize("own", [UserError("choose another folder"), CheckError("the effects are not known")])
def test_a_line_of_ours_stays_as_it_is(own):
    assert explain_memory(chained(own, MemoryError()), make_plan(), 0, "saving") is None


def test_a_broken_context_leaves_the_gpus_figures_unknown_with_the_reason(monkeypatch):
    def sticky():
        raise torch.AcceleratorError("CUDA error: out of memory", 2)

    monkeypatch.setattr(torch.cuda, "mem_get_info", sticky)
    error = explain_memory(RuntimeError("CUDA error: out of memory"), make_plan(), 1, "loading")
    error.add_estimate(limit_s=30)
    assert "out of memory on NVIDIA H200 of rank 1 while loading: CUDA error: out of memory" in str(error)
    assert "what this GPU has cannot be asked any more" in str(error)
    assert error.record()["total_bytes"] is None
    assert error.record()["figures_reason"] == "CUDA error: out of memory"


def kernel(root, cgroup, events, vmstat):
    """The kernel's files with these counts."""
    for name, text in (
        ("proc/self/cgroup", cgroup),
        (events[0], f"low 0\noom 5\noom_kill {events[1]}\noom_group_kill 9\n"),
        ("proc/vmstat", f"pgfault 1\noom_kill {vmstat}\n"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("cgroup", "events"),
    [
        ("0::/job_7/step_0\n", "sys/fs/cgroup/job_7/step_0/memory.events"),
        ("0::/../../docker\n", "sys/fs/cgroup/memory.events"),  # a container sees its group as the root
        ("4:memory:/job\n0::/\n", "sys/fs/cgroup/memory/job/memory.oom_control"),
        ("4:memory:/not/here\n0::/\n", "sys/fs/cgroup/memory/memory.oom_control"),
    ],
)
def test_the_kernels_counters_tell_of_its_oom_killer(tmp_path, cgroup, events):
    kernel(tmp_path, cgroup, (events, 3), 10)
    before = Kills.count(tmp_path)
    assert before == Kills(3, 10)
    assert Kills.count(tmp_path).since(before) is None  # it exited for another reason
    kernel(tmp_path, cgroup, (events, 3), 11)
    assert Kills.count(tmp_path).since(before).startswith("the host's OOM killer ended a process meanwhile")
    kernel(tmp_path, cgroup, (events, 4), 11)
    assert "of this job or container" in Kills.count(tmp_path).since(before)


def test_without_counters_memory_is_a_guess(tmp_path):
    before = Kills.count(tmp_path)
    assert before == Kills(None, None)
    assert Kills.count(tmp_path).since(before) == "perhaps killed for lack of host memory"
