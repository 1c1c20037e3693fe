"""Random weights that are the same bits on every machine, and nowhere zero."""

from __future__ import annotations

import math

import torch

_LEVELS = 1 << 16


def randomise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Fill every parameter of `model` in place from `seed`; returns it in eval mode.

    Diffusers starts some parameters at zero (the output projections, for example); a model
    with those ignores parts of its input, and a parity test on it then proves nothing.
    Matrices keep the variance of what flows through them, norms stay near one.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = {id(module.weight) for module in model.modules() if _has_norm_weight(module)}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(_values(parameter, id(parameter) in norms, generator))
    return model.eval()


def _values(parameter: torch.Tensor, is_norm: bool, generator: torch.Generator) -> torch.Tensor:
    noise = _uniform(parameter.shape, generator)
    if is_norm:
        return 1 + 0.2 * noise
    if parameter.ndim < 2:
        return 0.1 * noise
    fan_in = math.prod(parameter.shape[1:])
    return noise * math.sqrt(3 / fan_in)  # uniform on [-a, a] has variance a²/3


def _uniform(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Float32 in (-1, 1), never 0, from integers: exact, so it is alike on every CPU."""
    levels = torch.randint(_LEVELS, shape, generator=generator)
    return (levels.to(torch.float32) + 0.5) / (_LEVELS // 2) - 1


def _has_norm_weight(module: torch.nn.Module) -> bool:
    """Whether it is a norm of any library (each has its own class) with a scale of its own."""
    own = dict(module.named_parameters(recurse=False))
    return "norm" in type(module).__name__.lower() and "weight" in own
