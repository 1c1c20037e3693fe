"""The attention operators that the parts of a pipeline really run, seen in one generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mlenergy.diffusion.config.attention import ATTENTION, kernel_names

_WORDS = ("attention", "attn", "flash", "sage", *ATTENTION["math"].operators)
_NOT_CALLED = "this rank did not run it"
_NONE_SEEN = "no operator that torch's dispatcher sees"


@dataclass(frozen=True)
class Seen:
    """Operators of one part's first call: attention kernels, and softmax where attention is in parts.

    in_layers: those of them that ran inside of the layers that were asked about.
    reason: why both are None.
    """

    operators: dict[str, int] | None
    in_layers: dict[str, int] | None
    reason: str | None

    @property
    def record(self) -> dict[str, Any]:
        """For the results; the kernel is named as --attention_backend names it."""
        kernel = kernel_names(self.operators or {})
        return {"kernel": kernel, "operators": self.operators, "reason": self.reason}


def attention_of_parts(
    parts: Mapping[str, torch.nn.Module], layers: Sequence[torch.nn.Module], generate: Callable[[], object]
) -> dict[str, Seen]:
    """Attention of the first call of each part that `generate` makes.

    Compiled code runs uncompiled while it is watched. Nothing is measured here: watching costs time.

    layers: of any of the parts, counted apart too.
    """
    watch = _Watch()
    calls = {name: _FirstCall(part, watch) for name, part in parts.items()}
    handles = [
        handle
        for layer in layers
        for handle in (
            layer.register_forward_pre_hook(watch.enter_layer),
            layer.register_forward_hook(watch.leave_layer, always_call=True),
        )
    ]
    try:
        # Torch compiles nothing where a mode watches, and with fullgraph that is an error.
        with torch.compiler.set_stance("force_eager"):
            generate()
    finally:
        for handle in (*handles, *(handle for call in calls.values() for handle in call.handles)):
            handle.remove()
    return {name: call.seen for name, call in calls.items()}


class _FirstCall:
    """Turns the watch on for the first call of one module, and keeps what it has found."""

    def __init__(self, module: torch.nn.Module, watch: _Watch) -> None:
        self._watch = watch
        self._is_on = False
        self.seen = Seen(None, None, _NOT_CALLED)
        self.handles = [
            module.register_forward_pre_hook(self._enter),
            module.register_forward_hook(self._leave, always_call=True),
        ]

    def _enter(self, *_: Any) -> None:
        if self.seen.reason == _NOT_CALLED:
            self._watch.clear()
            self._watch.__enter__()
            self._is_on = True

    def _leave(self, *_: Any) -> None:
        if not self._is_on:
            return
        self._watch.__exit__(None, None, None)
        self._is_on = False
        found = dict(self._watch.found)
        self.seen = Seen(found, dict(self._watch.in_layers), None) if found else Seen(None, None, _NONE_SEEN)


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self.clear()

    def clear(self) -> None:
        """Forget what was found."""
        self.found: Counter[str] = Counter()
        self.in_layers: Counter[str] = Counter()

    def enter_layer(self, *_: Any) -> None:
        """Hook before a layer's call."""
        self._depth += 1

    def leave_layer(self, *_: Any) -> None:
        """Hook after it."""
        self._depth -= 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if any(word in name for word in _WORDS):
            self.found[name] += 1
            if self._depth:
                self.in_layers[name] += 1
        return func(*args, **(kwargs or {}))


def watched_parts(pipeline: Any, names: Iterable[str]) -> dict[str, torch.nn.Module]:
    """Name -> module whose calls show a component's attention; of a VAE the decoder, which decoding calls."""
    parts = {name: getattr(pipeline, name, None) for name in names}
    watched = {
        name: getattr(part, "decoder", part) if name == "vae" else part for name, part in parts.items()
    }
    return {name: part for name, part in watched.items() if isinstance(part, torch.nn.Module)}
