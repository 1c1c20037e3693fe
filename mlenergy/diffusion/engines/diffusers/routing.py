"""Routing of older diffusers models' self-attention through diffusers' attention dispatcher.

The processors of SD3, PixArt and HunyuanDiT (diffusers 0.42.1, models/attention_processor.py) call
torch's attention themselves, so that context parallelism, which works in the dispatcher
(models/attention_dispatch.py), does not see them: each rank would attend to its own tokens only,
without an error, and the image would be wrong. Their code is kept as it is; only the function that
they call is replaced. A test holds that the routing is still needed.
"""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention

_CALLED = "scaled_dot_product_attention"
_numbers = itertools.count()


def route_self_attention(model: torch.nn.Module, names: tuple[str, ...]) -> None:
    """Give the attention modules called `names` a processor that obeys the dispatcher's settings.

    Raises:
        TypeError: none of these modules is there, or a processor that does not call torch's
            attention by the name `F.scaled_dot_product_attention`.
    """
    found = [
        module
        for path, module in model.named_modules()
        if isinstance(module, Attention) and path.rpartition(".")[2] in names
    ]
    if not found:
        raise TypeError(f"{type(model).__name__} has no attention modules called {', '.join(names)}")
    # One for all modules of a kind: diffusers gives all the same settings, and a compiler that has
    # compiled one block then knows the others.
    routed: dict[type, Any] = {}
    for module in found:
        kind = type(module.processor)
        if kind not in routed:
            routed[kind] = _routed(module.processor)
        module.set_processor(routed[kind])


def _routed(processor: Any) -> Any:
    """A processor of a subclass whose call runs the same code with another `F`."""
    call = type(processor).__call__
    if not {"F", _CALLED} <= set(call.__code__.co_names):
        raise TypeError(f"{type(processor).__name__} does not call F.{_CALLED}: it cannot be routed")
    # A module, as the one that it stands for: the compiler follows its attributes.
    functional = types.ModuleType("routed_functional")
    functional.__dict__.update(vars(torch.nn.functional))
    # The very code object with other globals: a copy of the processor's source would have to follow every
    # change of diffusers, and a wrapper would hide the signature, by which Attention.forward decides which
    # arguments the processor gets.
    rebound = types.FunctionType(
        call.__code__,
        _module_like(call.__globals__, F=functional),
        call.__name__,
        call.__defaults__,
        call.__closure__,
    )
    rebound.__annotations__, rebound.__kwdefaults__ = call.__annotations__, call.__kwdefaults__
    # Diffusers sets these two on every processor that has them.
    settings = {"_attention_backend": None, "_parallel_config": None}
    kind = type(f"Routed{type(processor).__name__}", (type(processor),), {"__call__": rebound, **settings})
    settled = kind()
    functional.__dict__[_CALLED] = _dispatching(settled)
    return settled


def _module_like(names: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """The global names of a new module that has those of another one, but for some.

    The compiler finds a function's globals by its module's name, so that these need a name, too.
    """
    module = types.ModuleType(f"{__name__}.routed_{next(_numbers)}")
    module.__dict__.update({**names, **changed, "__name__": module.__name__})
    sys.modules[module.__name__] = module
    return module.__dict__


def _dispatching(processor: Any) -> Callable[..., torch.Tensor]:
    """Torch's attention by its own name and arguments, done as the processor's settings say."""

    def scaled_dot_product_attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
    ) -> torch.Tensor:
        # Torch's layout is (batch, heads, tokens, width), and the dispatcher's has tokens before heads.
        out: torch.Tensor = dispatch_attention_fn(
            *(x.transpose(1, 2) for x in (query, key, value)),
            attn_mask=attn_mask,
            dropout_p=dropout_p,
            is_causal=is_causal,
            backend=processor._attention_backend,
            parallel_config=processor._parallel_config,
        )
        return out.transpose(1, 2)

    return scaled_dot_product_attention
