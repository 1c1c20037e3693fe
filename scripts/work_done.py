"""The work of one generation, operator by operator: proof that two ways of running it do the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = ("aten.mm.", "aten.addmm.", "aten.bmm.", "aten.baddbmm.")
_ATTENTION = ("attention", "attn", "aten._softmax.", "aten._safe_softmax.")


def work_of(generate: Callable[[], object]) -> dict[str, Any]:
    """Matrix products, attention operators and convolutions of a call, and those that gave channels last.

    What is compiled runs uncompiled for it.
    """
    work = _Work()
    with torch.compiler.set_stance("force_eager"), torch.no_grad(), work:
        generate()
    return {
        "products": work.products,
        "attention": dict(sorted(work.attention.items())),
        "convolutions": work.convolutions,
        "channels_last": work.channels_last,
    }


class _Work(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.products = self.convolutions = self.channels_last = 0
        self.attention: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found, name = func(*args, **(kwargs or {})), str(func)
        if name.startswith(_PRODUCTS):
            self.products += 1
        elif any(word in name for word in _ATTENTION):
            self.attention[name] += 1
        elif name.startswith("aten.convolution.") and found.ndim == 4:
            is_first = found.is_contiguous()
            is_last = found.is_contiguous(memory_format=torch.channels_last)
            if is_first != is_last:  # a tensor of one channel, or of one pixel, is both
                self.convolutions += 1
                self.channels_last += is_last
        return found
