"""FLOPs of one generation as it runs, stage by stage: for pipelines whose work no file predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.models.spec import Stage

_aten = torch.ops.aten
_WORDS = ("attention", "attn", "sage")


def is_counted_as_it_runs(plan: Plan) -> bool:
    """True where no file predicts the work, and no ranks share an image: theirs would count twice."""
    return plan.spec.family.counts_as_run and plan.parallel.world_size == plan.parallel.data


def flops_as_run(
    components: Mapping[str, torch.nn.Module], stages: Mapping[str, Stage], generate: Callable[[], object]
) -> dict[str, Any]:
    """FLOPs of the operators that `generate` dispatches on this rank; a multiply and an add are two.

    components: name -> module; calls of those that encode the text or denoise are told apart.

    Returns:
        text_encode, denoise, vae_decode (all that remains) and reason: why the three are None.
    """
    seen: dict[str, int] = {"text_encode": 0, "denoise": 0}
    foreign = _ForeignAttention()
    counter = FlopCounterMode(display=False, custom_mapping=_ATTENTION)
    handles = []
    for name, module in components.items():
        stage = stages.get(name)
        if stage in seen:
            handles += _counting_hooks(module, stage, seen, counter)
    try:
        with counter, foreign:
            generate()
    except AssertionError as error:  # a formula of torch's counter does not know these shapes
        return _unknown(f"torch's counter does not know an operator's shapes ({error})")
    finally:
        for handle in handles:
            handle.remove()
    if foreign.names:
        return _unknown(f"the FLOPs of {', '.join(sorted(foreign.names))} are not known")
    total = counter.get_total_flops()
    return {**seen, "vae_decode": total - sum(seen.values()), "reason": None}


def _unknown(reason: str) -> dict[str, Any]:
    return {"text_encode": None, "denoise": None, "vae_decode": None, "reason": reason}


def _counting_hooks(
    module: torch.nn.Module, stage: str, seen: dict[str, int], counter: FlopCounterMode
) -> list[Any]:
    began: list[int] = []

    def enter(*_: Any) -> None:
        began.append(counter.get_total_flops())

    def leave(*_: Any) -> None:
        seen[stage] += counter.get_total_flops() - began.pop()

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Both products of attention, of shapes (batch, heads, tokens, width); heads of keys may be shared."""
    batch, heads, tokens, width = query
    return 2 * int(batch * heads * tokens * key[2] * (width + value[3]))


# Torch's own formulas lack the CPU's kernel, and refuse heads that share their keys.
_ATTENTION = dict.fromkeys(
    (
        _aten._scaled_dot_product_flash_attention_for_cpu,
        _aten._scaled_dot_product_flash_attention,
        _aten._scaled_dot_product_efficient_attention,
        _aten._scaled_dot_product_cudnn_attention,
        _aten._scaled_dot_product_fused_attention_overrideable,
    ),
    _attention,
)


class _ForeignAttention(TorchDispatchMode):
    """Names of the attention operators that the counter passes over."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = getattr(func, "overloadpacket", func)
        name = str(packet)
        if any(word in name for word in _WORDS) and packet not in _ATTENTION and packet not in flop_registry:
            self.names.add(name)
        return func(*args, **(kwargs or {}))
