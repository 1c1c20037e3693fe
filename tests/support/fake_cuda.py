"""A CPU build of torch that pretends to hold NVIDIA GPUs: shapes, devices and branches, no values.

Every tensor is a FakeTensor on ``cuda:N``: the branches that code takes on CUDA are taken, at any model size,
without weights' memory. Not there: numbers (`item` gives constants), time, allocators, NCCL, generated code.
It replaces parts of torch for the whole process, so it belongs in one of its own (fake_cuda_worker.py).
"""

from __future__ import annotations

import contextlib
import functools
import os
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from fake_cuda_watch import LOG
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

NAME = "NVIDIA H200"
_state = {"current": 0, "count": 1}


def pretend(rank: int, count: int) -> torch.device:
    """Be a process with `count` GPUs whose own one is number `rank`; returns that device."""
    _state.update(current=rank, count=count)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count)
    )
    return torch.device("cuda", rank)


def join_group(rank: int, world_size: int) -> None:
    """One rank of a process group whose other ranks are not there; what they would send has no values."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        dist.destroy_process_group()
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)


def install() -> None:
    """Replace what a CPU build lacks; before anything asks torch whether it has CUDA."""
    _install_cuda()
    _install_tensor_methods()
    _install_functions()
    _install_groups()


class _Event:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def record(self, *_: Any) -> None:
        pass

    def elapsed_time(self, _: _Event) -> float:
        return 1.0

    def synchronize(self) -> None:
        LOG.note("event.synchronize")

    def wait(self, *_: Any) -> None:
        pass


class _Stream:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def synchronize(self) -> None:
        LOG.note("stream.synchronize")

    def wait_stream(self, _: Any) -> None:
        pass

    def wait_event(self, _: Any) -> None:
        pass

    def record_event(self, *_: Any) -> _Event:
        return _Event()

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def _install_cuda() -> None:
    properties = types.SimpleNamespace(
        uuid="0",
        name=NAME,
        gcnArchName=NAME,
        major=9,
        minor=0,
        multi_processor_count=132,
        total_memory=141 << 30,
    )
    replaced: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: _state["count"],
        "current_device": lambda: _state["current"],
        "set_device": lambda device: _state.update(current=torch.device("cuda", _index(device)).index),
        "get_device_name": lambda *_: NAME,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_properties": lambda *_: properties,
        "synchronize": lambda *_: LOG.note("torch.cuda.synchronize"),
        "mem_get_info": lambda *_: (140 << 30, 141 << 30),
        "reset_peak_memory_stats": lambda *_: None,
        "memory_stats_as_nested_dict": lambda *_: {
            key: {"all": {"peak": 1}} for key in ("allocated_bytes", "reserved_bytes")
        },
        "memory_allocated": lambda *_: 1,
        "empty_cache": lambda: None,
        "is_current_stream_capturing": lambda: False,
        "device": lambda *_: contextlib.nullcontext(),
        "stream": lambda *_: contextlib.nullcontext(),
        "current_stream": lambda *_: _Stream(),
        "default_stream": lambda *_: _Stream(),
        "Stream": _Stream,
        "Event": _Event,
    }
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
    torch.accelerator.device_count = lambda: _state["count"]
    torch.version.cuda = "13.0"
    torch.backends.cudnn.is_available = lambda: True  # type: ignore[assignment]


def _index(device: Any) -> int:
    if isinstance(device, int):
        return device
    index = torch.device(device).index
    return _state["current"] if index is None else index


def _install_tensor_methods() -> None:
    """Methods whose C++ code guards a CUDA device, which a CPU build cannot; the same operators without."""
    aten = torch.ops.aten
    replaced: dict[str, Callable[..., Any]] = {
        "__getitem__": _getitem,
        "__setitem__": _setitem,
        "contiguous": _contiguous,
        "to": _to,
        "cpu": lambda self: _to(self, "cpu"),
        "cuda": lambda self, *_: _to(self, "cuda"),
        "type_as": lambda self, other: _to(self, other.dtype),
        "item": aten._local_scalar_dense,
        "__bool__": lambda self: bool(aten._local_scalar_dense(self)),
        "__float__": lambda self: float(aten._local_scalar_dense(self)),
        "__int__": lambda self: int(aten._local_scalar_dense(self)),
        "__index__": lambda self: int(aten._local_scalar_dense(self)),
        "tolist": _tolist,
        "numpy": _numpy,
        "nonzero": _nonzero,
        "clamp": aten.clamp,
        "abs": aten.abs,
        "__deepcopy__": lambda self, _: aten.clone(self),  # torch's own reads a storage, and crashes
        "copy_": lambda self, other, *_: aten.copy_(self, other),
        "pin_memory": lambda self, *_: self,
        "is_pinned": lambda *_: True,
        "record_stream": lambda *_: None,
    }
    for name, dtype in (
        *(("float", torch.float32), ("half", torch.float16), ("bfloat16", torch.bfloat16)),
        *(("double", torch.float64), ("int", torch.int32), ("long", torch.int64), ("bool", torch.bool)),
    ):
        replaced[name] = lambda self, _dtype=dtype: _to(self, _dtype)
    for name, function in replaced.items():
        _replace_method(name, function)
    torch.nn.Module._apply = _apply  # type: ignore[assignment,method-assign]


def _replace_method(name: str, function: Callable[..., Any]) -> None:
    original = getattr(torch.Tensor, name)

    def method(self: Any, *args: Any, **options: Any) -> Any:
        return (function if isinstance(self, FakeTensor) else original)(self, *args, **options)

    setattr(torch.Tensor, name, method)
    if name in vars(FakeTensor):
        setattr(FakeTensor, name, method)


def _getitem(self: Any, index: Any) -> Any:
    """Python's indexing, by operators."""
    aten = torch.ops.aten
    parts = list(index) if isinstance(index, tuple) else [index]
    taken = sum(
        p.ndim if isinstance(p, torch.Tensor) and p.dtype is torch.bool else 1
        for p in parts
        if p is not None and p is not Ellipsis
    )
    places = [n for n, p in enumerate(parts) if p is Ellipsis]
    for place in places:
        parts[place : place + 1] = [slice(None)] * (self.dim() - taken)
    out, at, tensors = self, 0, {}
    for part in parts:
        if part is None:
            out, at = aten.unsqueeze(out, at), at + 1
        elif isinstance(part, slice):
            begin, end, step = part.indices(out.shape[at])
            if (begin, end, step) != (0, out.shape[at], 1):
                out = aten.slice(out, at, begin, max(begin, end), step)
            at += 1
        elif isinstance(part, int):
            out = aten.select(out, at, part)
        elif isinstance(part, torch.Tensor) and part.ndim == 0 and part.dtype is not torch.bool:
            part.item()
            out = aten.select(out, at, 0)
        else:
            tensors[at] = part if isinstance(part, torch.Tensor) else torch.tensor(part)
            at += tensors[at].ndim if tensors[at].dtype is torch.bool else 1
    if not tensors:
        return out
    return aten.index(out, [tensors.get(key) for key in range(max(tensors) + 1)])


def _setitem(self: Any, index: Any, value: Any) -> None:
    if isinstance(index, torch.Tensor) and index.dtype is torch.bool:
        torch.ops.aten.masked_fill_(self, index, value if not isinstance(value, torch.Tensor) else 0)
        return
    target = _getitem(self, index)
    if isinstance(value, torch.Tensor):
        torch.ops.aten.copy_(target, value)
    else:
        torch.ops.aten.fill_(target, value)


def _contiguous(self: Any, memory_format: Any = torch.contiguous_format) -> Any:
    if self.is_contiguous(memory_format=memory_format):
        return self
    return torch.ops.aten.clone(self, memory_format=memory_format)


def _to(self: Any, *args: Any, memory_format: Any = torch.preserve_format, **options: Any) -> Any:
    moved = _moved(self, *args, **options)
    if memory_format in (None, torch.preserve_format):
        return moved
    return torch.ops.aten.clone(moved, memory_format=memory_format)


def _moved(self: Any, *args: Any, **options: Any) -> Any:
    device, dtype = options.get("device"), options.get("dtype")
    for part in args:
        if isinstance(part, torch.dtype):
            dtype = part
        elif isinstance(part, torch.Tensor):
            device, dtype = part.device, part.dtype
        elif isinstance(part, (str, torch.device)) or (isinstance(part, int) and not isinstance(part, bool)):
            device = part
    wanted: dict[str, Any] = {}
    if dtype is not None and dtype != self.dtype:
        wanted["dtype"] = dtype
    if device is not None:
        place = _own_index(torch.device("cuda", device) if isinstance(device, int) else torch.device(device))
        if place != self.device:
            wanted |= {"device": place, "non_blocking": bool(options.get("non_blocking"))}
    if not wanted:
        return self
    if getattr(self, "constant", None) is not None and "device" in wanted:
        self = torch.zeros(self.shape, dtype=self.dtype)  # a constant's device guard is real
    return torch.ops.aten._to_copy(self, **wanted)


def _own_index(device: torch.device) -> torch.device:
    """ "cuda" alone is the current device."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", _state["current"])
    return device


def _tolist(self: Any) -> Any:
    if self.device.type == "cuda":
        LOG.note("tolist")
    value = 1.0 if self.dtype.is_floating_point else 1
    return [value] * self.numel() if self.ndim else value


def _numpy(self: Any, **_: Any) -> Any:
    import numpy

    return numpy.ones(tuple(self.shape))


def _nonzero(self: Any, **_: Any) -> Any:
    if self.device.type == "cuda":
        LOG.note("nonzero")
    return torch.ops.aten.new_zeros(self, (1, self.ndim), dtype=torch.int64)


def _apply(self: Any, function: Any, recurse: bool = True) -> Any:
    """Torch's own swaps storages, which tensors without one have not."""
    for module in self.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(
                    function(parameter.detach()), requires_grad=False
                )
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = function(buffer)
    return self


def _install_functions() -> None:
    make = torch.tensor

    def values(data: Any) -> Any:
        if isinstance(data, torch.Tensor):
            return data.item()
        return [values(part) for part in data] if isinstance(data, (list, tuple)) else data

    def tensor(data: Any, *args: Any, device: Any = None, **options: Any) -> Any:
        made = make(values(data), *args, **options)
        if device is None or torch.device(device).type != "cuda":
            return made
        return _to(torch.zeros(made.shape, dtype=made.dtype), device)

    torch.tensor = tensor
    attend = torch.nn.functional.scaled_dot_product_attention

    def attention(query: Any, key: Any, value: Any, *args: Any, **options: Any) -> Any:
        if query.device.type != "cuda":
            return attend(query, key, value, *args, **options)
        LOG.by_torch = True
        try:
            return _chosen_kernel(query, key, value, *args, **options)
        finally:
            LOG.by_torch = False

    torch.nn.functional.scaled_dot_product_attention = attention


def _chosen_kernel(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> Any:
    """Torch's attention by the first kernel of its order on an H200 that is allowed and takes the tensors."""
    allowed, aten = torch.backends.cuda, torch.ops.aten
    half = query.dtype in (torch.float16, torch.bfloat16)
    if allowed.cudnn_sdp_enabled() and half:
        attend = aten._scaled_dot_product_cudnn_attention
        return attend(query, key, value, attn_mask, False, dropout_p, is_causal)[0]
    if allowed.flash_sdp_enabled() and half and attn_mask is None:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal)[0]
    if allowed.mem_efficient_sdp_enabled():
        attend = aten._scaled_dot_product_efficient_attention
        return attend(query, key, value, attn_mask, False, dropout_p, is_causal)[0]
    if allowed.math_sdp_enabled():
        return aten._scaled_dot_product_attention_math(query, key, value, attn_mask, dropout_p, is_causal)[0]
    raise RuntimeError("No available kernel. Aborting execution.")


def _install_groups() -> None:
    import torch.distributed.device_mesh as device_mesh

    new_group = dist.new_group

    def fake_group(ranks: Any = None, *_: Any, **__: Any) -> Any:
        return new_group(ranks, backend="fake")

    for module in (dist, dist.distributed_c10d, device_mesh):
        module.new_group = fake_group  # type: ignore[attr-defined]
    # A mesh's table of ranks has to have values.
    mesh = device_mesh.DeviceMesh
    for name, member in list(vars(mesh).items()):
        if isinstance(member, types.FunctionType):
            setattr(mesh, name, _without_modes(member))
        elif isinstance(member, property) and member.fget is not None:
            setattr(mesh, name, property(_without_modes(member.fget)))
    device_mesh.init_device_mesh = _without_modes(device_mesh.init_device_mesh)
    dist.init_device_mesh = device_mesh.init_device_mesh


def _without_modes(function: Any) -> Any:
    @functools.wraps(function)
    def outside(*args: Any, **options: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **options)

    return outside
