"""Parameters without a file: made on the device in the run's dtype, seeded, properly scaled."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

_BIAS_STD = 0.02
_NORM_SPREAD = 0.05
_LEVELS = 1 << 16


@dataclass(frozen=True)
class Slot:
    """One place in a module that holds a parameter; tied parameters have several."""

    owner: torch.nn.Module
    key: str
    name: str  # the full name of the first place
    is_norm: bool


Draw = Callable[[torch.Tensor, Slot], None]  # fills a tensor in place


def materialise(
    module: torch.nn.Module, device: torch.device, dtype: torch.dtype, draw: Draw
) -> torch.nn.Module:
    """Give a module of the meta device real parameters on `device`, one at a time; returns it.

    No parameter exists anywhere before it exists on the device. Matrices keep the variance of what
    flows through them, norms are near one, nothing is zero. Buffers keep their values; floating
    ones that files hold move to `dtype`, as loading does.
    """
    kept = _float32_names(module, dtype)
    made: dict[int, torch.nn.Parameter] = {}
    for slot, parameter in _slots(module):
        if id(parameter) not in made:
            wide = any(word in slot.name.split(".") for word in kept)
            value = torch.empty(parameter.shape, device=device, dtype=torch.float32 if wide else dtype)
            draw(value, slot)
            made[id(parameter)] = torch.nn.Parameter(value, requires_grad=False)
        slot.owner._parameters[slot.key] = made[id(parameter)]
    _move_buffers(module, device, dtype)
    return module


def draw_by_name(seed: int, scope: str) -> Draw:
    """Draw each parameter from a generator of its own, seeded by `seed`, `scope` and its name.

    The same values on every rank and in any order, on GPUs of one kind; another kind's generator may
    draw other values from the same seed.
    """

    @torch.no_grad()
    def draw(value: torch.Tensor, slot: Slot) -> None:
        digest = hashlib.blake2b(f"{seed}/{scope}/{slot.name}".encode(), digest_size=8).digest()
        generator = torch.Generator(value.device).manual_seed(int.from_bytes(digest, "big") >> 1)
        if slot.is_norm:
            value.normal_(1.0, _NORM_SPREAD, generator=generator)
        elif value.ndim < 2:
            value.normal_(0.0, _BIAS_STD, generator=generator)
        else:
            fan_in = math.prod(value.shape[1:])
            value.normal_(0.0, 1 / math.sqrt(fan_in), generator=generator)

    return draw


def draw_in_order(seed: int) -> Draw:
    """Draw all parameters of a component from one generator: the same bits on every machine.

    Diffusers starts some parameters at zero (the output projections, for example); a model
    with those ignores parts of its input, and a parity test on it then proves nothing.
    """
    generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def draw(value: torch.Tensor, slot: Slot) -> None:
        # In (-1, 1) and never 0, made of integers: normal numbers would differ between CPUs in the last bit.
        levels = torch.randint(_LEVELS, value.shape, generator=generator)
        noise = (levels.to(torch.float32) + 0.5) / (_LEVELS // 2) - 1
        if slot.is_norm:
            value.copy_(1 + 0.2 * noise)
        elif value.ndim < 2:
            value.copy_(0.1 * noise)
        else:
            fan_in = math.prod(value.shape[1:])
            value.copy_(noise * math.sqrt(3 / fan_in))  # uniform on [-a, a] has variance a²/3

    return draw


def _slots(module: torch.nn.Module) -> Iterator[tuple[Slot, torch.nn.Parameter]]:
    """Every place of every parameter; a list, since the places change while it is used."""
    found = []
    for prefix, owner in module.named_modules():
        is_norm = "norm" in type(owner).__name__.lower()
        for key, parameter in owner._parameters.items():
            if parameter is not None:
                name = f"{prefix}.{key}" if prefix else key
                found.append((Slot(owner, key, name, is_norm and key == "weight"), parameter))
    return iter(found)


def _float32_names(module: torch.nn.Module, dtype: torch.dtype) -> tuple[str, ...]:
    """Parts that stay in float32: transformers' where a model is loaded in float16 (T5's `wo`).

    Diffusers' stay in any smaller type (Wan's time embedding and norms; models/modeling_utils.py of 0.42.1).
    """
    if dtype is torch.float32 or (dtype is not torch.float16 and not _is_of_diffusers(module)):
        return ()
    return tuple(getattr(module, "_keep_in_fp32_modules", None) or ())


def _is_of_diffusers(module: torch.nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] == "diffusers"


def _move_buffers(module: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Tables that no file holds (positions, mostly in float32) keep their type, as loading leaves them."""
    for owner in module.modules():
        for key, buffer in owner._buffers.items():
            if buffer is not None:
                is_cast = buffer.is_floating_point() and key not in owner._non_persistent_buffers_set
                owner._buffers[key] = buffer.to(device, dtype if is_cast else buffer.dtype)
