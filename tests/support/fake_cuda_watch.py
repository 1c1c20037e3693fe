"""What runs on fake CUDA devices: waits of the host, attention kernels and their inputs, devices."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_SKIPPED = ("/torch/", "fake_cuda", "contextlib")  # frames that are not the place that waits
_READS = ("aten._local_scalar_dense.default", "aten.item.default", "aten.is_nonzero.default")
_SIZED_BY_VALUES = (
    *(
        "aten.nonzero.default",
        "aten.masked_select.default",
        "aten.unique_dim.default",
        "aten._unique2.default",
    ),
)
_ATTENTION = ("attention", "attn", "flash", "sage", "_softmax.default", "_safe_softmax.default")


@dataclass
class Log:
    """What has happened since `clear`; a mark stands between waits at every call of the denoiser."""

    waits: list[str] = field(default_factory=list)  # "kind at file:line code", and marks
    kernels: Counter[str] = field(default_factory=Counter)  # the denoiser's attention operators
    views: Counter[str] = field(default_factory=Counter)  # those called by name on what is not contiguous
    devices: Counter[str] = field(default_factory=Counter)  # of operators' results, but for the CPU's
    by_torch: bool = False  # torch's own attention calls the operator, and knows what it takes

    yes: bool = True  # what a truth value on the device is read as

    def note(self, kind: str) -> None:
        """The host waits for the device here."""
        self.waits.append(f"{kind} at {place()}")

    def mark(self, word: str) -> None:
        """The denoiser begins ("enter") or ends ("leave") a call."""
        self.waits.append(word)

    @property
    def denoiser_runs(self) -> bool:
        """True within a call of the denoiser."""
        return self.waits.count("enter") > self.waits.count("leave")

    def attention(self, name: str, args: tuple[Any, ...]) -> None:
        """An attention operator runs."""
        if self.denoiser_runs:
            self.kernels[name] += 1
            if not self.by_torch and not all(part.is_contiguous() for part in args[:3]):
                self.views[name] += 1

    def while_denoising(self) -> Counter[str]:
        """Waits between the denoiser's first entry and its last exit."""
        begin = self.waits.index("enter")
        end = len(self.waits) - self.waits[::-1].index("leave")
        return Counter(wait for wait in self.waits[begin:end] if wait not in ("enter", "leave"))

    def clear(self) -> None:
        """Forget all."""
        self.waits.clear()
        for counter in (self.kernels, self.views, self.devices):
            counter.clear()


LOG = Log()


def place() -> str:
    """The innermost line outside of torch and of this support: file:line and its text."""
    for frame in reversed(traceback.extract_stack(limit=60)):
        if not any(word in frame.filename for word in _SKIPPED):
            return f"{frame.filename.split('site-packages/')[-1]}:{frame.lineno} {(frame.line or '')[:90]}"
    return "?"


class Watch(TorchDispatchMode):
    """Logs every operator that makes the host wait, and every attention operator; gives reads a constant."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, options = str(func), kwargs or {}
        on_cuda = any(_is_cuda(part) for part in args)
        if name in _READS or name == "aten.equal.default":
            if on_cuda:
                LOG.note(name)
            return True if name == "aten.equal.default" else _constant(args[0].dtype)
        if on_cuda and (name in _SIZED_BY_VALUES or _picks_by_mask(name, args)):
            LOG.note(name)
        if name == "aten.nonzero.default":
            return args[0].new_zeros((1, args[0].ndim), dtype=torch.int64)
        out = func(*args, **options)
        if _copies_and_waits(name, args, options, out):
            LOG.note(f"{'copy to' if _is_cuda(out) else 'copy from'} the device")
        if any(word in name for word in _ATTENTION):
            LOG.attention(name, args)
        if _is_cuda(out):
            LOG.devices[str(out.device)] += 1
        return out


def _is_cuda(part: Any) -> bool:
    return isinstance(part, torch.Tensor) and part.device.type == "cuda"


def _constant(dtype: torch.dtype) -> Any:
    return LOG.yes if dtype is torch.bool else (1.0 if dtype.is_floating_point else 0)


def _picks_by_mask(name: str, args: tuple[Any, ...]) -> bool:
    return name == "aten.index.Tensor" and any(p is not None and p.dtype is torch.bool for p in args[1])


def _copies_and_waits(name: str, args: tuple[Any, ...], options: dict[str, Any], out: Any) -> bool:
    """Torch waits for the stream after a copy between host and device that is not said to be non-blocking."""
    if name == "aten._to_copy.default":
        return _is_cuda(args[0]) != _is_cuda(out) and not options.get("non_blocking")
    if name == "aten.copy_.default":
        return _is_cuda(args[0]) != _is_cuda(args[1]) and not (len(args) > 2 and args[2])
    return False
