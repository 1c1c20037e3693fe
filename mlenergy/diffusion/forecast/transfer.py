"""Constants of a GPU without measured runs, from those of another by the data sheets."""

from __future__ import annotations

from collections.abc import Mapping

from mlenergy.diffusion.forecast.formula import Card

# What grows with a figure of the data sheet; all other constants are taken as they are.
_WITH_EXPONENTIALS = ("score_rate",)
_WITH_POWER = ("base_w", "matmul_w", "attention_w", "memory_w", "link_w")


def scaled(constants: Mapping[str, float], source: Card, target: Card) -> dict[str, float]:
    """Constants of `target`: exponentials grow with those of the GPU, watts with its limit."""
    factors = dict.fromkeys(_WITH_EXPONENTIALS, target.exponentials_per_s / source.exponentials_per_s)
    factors |= dict.fromkeys(_WITH_POWER, target.power_w / source.power_w)
    return {name: value * factors.get(name, 1.0) for name, value in constants.items()}
