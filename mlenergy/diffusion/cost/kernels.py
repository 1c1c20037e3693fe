"""Work of a call by kind of kernel, counted on the meta device: what a forecast of its time is made of.

Eager torch starts a kernel for each operator. Matrix products and attention cost arithmetic, all other
operators the bytes that they read and write, and every one a launch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlenergy.diffusion.cost.kernel_work import KernelWork

_HEAD_STEP = 32  # fused attention kernels are built for head widths of such multiples
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")


def kernel_work(call: Callable[[], Any]) -> dict[str, float]:
    """Work of a call whose tensors are on the meta device, by the names of `KernelWork`."""
    counter = _Counter()
    with torch.no_grad(), _Attention(counter), counter:
        call()
    return asdict(counter.work)


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.work = KernelWork()
        self.paused = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if not self.paused:
            self._add(func._schema.name.partition("::")[2], _tensors((args, kwargs)), _tensors(output))
        return output

    def _add(self, name: str, read: list[torch.Tensor], written: list[torch.Tensor]) -> None:
        if not written or (_are_views(written, read) and not name.endswith("_")):
            return
        self.work.kernels += 1
        if name in _PRODUCTS:
            left, right = read[-2:]
            rows = left.shape[-2] * (left.shape[0] if left.ndim == 3 else 1)
            self._product(rows, right.shape[-1], left.shape[-1])
        elif name == "convolution":
            weight, channels = read[1], written[0].shape[1]
            self._product(written[0].numel() // channels, channels, weight.numel() // weight.shape[0])
        else:
            self.work.elementwise_bytes += sum(t.numel() * t.element_size() for t in (*read, *written))

    def _product(self, m: int, n: int, k: int) -> None:
        flops = 2 * m * n * k
        self.work.matmul_flops += flops
        self.work.matmul_flops_per_side += flops / min(n, k)
        self.work.matmul_flops_a_row += 2 * n * k

    def attention(self, query: torch.Tensor, key: torch.Tensor) -> None:
        """Add one fused attention over tensors of (batch, heads, tokens, head width)."""
        scores = query.numel() // query.shape[-1] * key.shape[-2]
        width = -(-query.shape[-1] // _HEAD_STEP) * _HEAD_STEP
        self.work.kernels += 1
        self.work.attention_flops += 4 * scores * width
        self.work.attention_scores += scores


class _Attention(TorchFunctionMode):
    """Counts a fused attention as one kernel: on the meta device torch would take the plain way instead."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
        query, key, value = named["query"], named["key"], named["value"]
        self.counter.attention(query, key)
        self.counter.paused = True
        try:
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        finally:
            self.counter.paused = False


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _are_views(written: list[torch.Tensor], read: list[torch.Tensor]) -> bool:
    storages = {tensor.untyped_storage()._cdata for tensor in read}
    return all(tensor.untyped_storage()._cdata in storages for tensor in written)
