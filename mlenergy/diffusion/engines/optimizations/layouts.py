"""Channels last in memory: weights of convolutions turned so, and the layout that outputs really have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from mlenergy.diffusion.errors import UserError


def turn_channels_last(module: torch.nn.Module, option: str) -> None:
    """Hold the weights of all convolutions with their channels last.

    Raises:
        UserError: some are over time, too, where the layout does not last from one layer to the next.
    """
    if any(isinstance(layer, torch.nn.Conv3d) for layer in module.modules()):
        name = type(module).__name__
        raise UserError(
            f"{option}: {name} convolves over time too, and its layers undo the layout; leave it out"
        )
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def layouts_seen(
    parts: Mapping[str, torch.nn.Module], generate: Callable[[], object]
) -> dict[str, dict[str, int]]:
    """Calls of convolutions of each part that `generate` makes, and those whose output had channels last.

    Compiled code runs uncompiled for it. Nothing is measured here.
    """
    found = {name: {"convolutions": 0, "channels_last": 0} for name in parts}
    handles = [
        layer.register_forward_hook(_counting(found[name]))
        for name, part in parts.items()
        for layer in part.modules()
        if isinstance(layer, torch.nn.Conv2d)
    ]
    try:
        with torch.compiler.set_stance("force_eager"):
            generate()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _counting(counts: dict[str, int]) -> Callable[..., None]:
    def look(_: Any, __: Any, output: torch.Tensor) -> None:
        is_first = output.is_contiguous()
        is_last = output.is_contiguous(memory_format=torch.channels_last)
        if not (is_first and is_last):  # a tensor of one channel, or of one pixel, shows nothing
            counts["convolutions"] += 1
            counts["channels_last"] += is_last

    return look
