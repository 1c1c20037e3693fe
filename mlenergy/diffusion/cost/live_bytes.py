"""How many bytes of activations are alive at once, on the meta device or a real one."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operators make and that still live; keeps the largest sum.

    What an operator allocates and frees inside its own kernel (workspaces) is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def watch(self, tensors: Any) -> None:
        """Count these tensors, too (the inputs, which were made before)."""
        for leaf in tree_leaves(tensors):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self.watch(output)
        return output

    def ignore(self, module: torch.nn.Module) -> None:
        """Leave the module's weights out: an operator that returns a view of one makes nothing new."""
        for tensor in (*module.parameters(), *module.buffers()):
            self._known.add(tensor.untyped_storage()._cdata)

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key, storage.nbytes())

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class FusedAttention(TorchFunctionMode):
    """Makes attention return its output and nothing else, as fused kernels do.

    On the meta device torch takes the plain way instead, whose matrix of every token with
    every token no GPU ever holds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, _key, value = args[:3] if len(args) >= 3 else _named(args, kwargs or {})
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **(kwargs or {}))


def peak_bytes(module: torch.nn.Module, call: Callable[[], Any], inputs: Any) -> int:
    """Largest sum of live activation bytes in `call`, inputs included and weights not."""
    counter = LiveBytes()
    counter.ignore(module)
    counter.watch(inputs)
    with torch.no_grad(), FusedAttention(), counter:
        call()
    return counter.peak


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
    named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
    return named["query"], named["key"], named["value"]
