"""Which attention kernels a denoiser really runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_WORDS = ("attention", "attn", "flash", "sage")
# What attention is made of where no kernel does it in one.
_UNFUSED = ("aten._softmax.default", "aten._safe_softmax.default")


def attention_kernels(denoiser: torch.nn.Module, generate: Callable[[], object]) -> dict[str, int]:
    """Operator -> how often it ran in the first call of `denoiser` that `generate` makes.

    Operators are those that torch's dispatcher sees: attention kernels, and softmax where
    attention is done in parts. Compiled code runs uncompiled while it is watched.
    """
    watch = _Watch()
    state = {"is_on": False, "is_done": False}

    def enter(*_: Any) -> None:
        if not state["is_done"]:
            watch.__enter__()
            state["is_on"] = True

    def leave(*_: Any) -> None:
        if state["is_on"]:
            watch.__exit__(None, None, None)
            state.update(is_on=False, is_done=True)

    handles = [
        denoiser.register_forward_pre_hook(enter),
        denoiser.register_forward_hook(leave, always_call=True),
    ]
    try:
        generate()
    finally:
        for handle in handles:
            handle.remove()
    return dict(watch.found)


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if name in _UNFUSED or any(word in name for word in _WORDS):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))
