"""What a component costs at a given size, from the counts of its architecture: plain arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlenergy.diffusion.cost.cached import counted_costs
from mlenergy.diffusion.models.architectures.reader import Architecture
from mlenergy.diffusion.models.spec import Dtype

BYTES: dict[Dtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class ComponentCosts:
    """Counts of one component; see `mlenergy.diffusion.cost.fit.count_costs` for their meaning."""

    name: str
    parameters: int
    buffers: int
    block_parameters: int
    float32_parameters: int
    flops: Mapping[str, float]
    activations: Mapping[str, Mapping[str, float]]

    def flops_at(self, rows: float, cells: float, text: float) -> float:
        """FLOPs of one call with that many rows, latent cells and text tokens."""
        return rows * _value(self.flops, cells, text)

    def activation_bytes_at(self, rows: float, cells: float, text: float, itemsize: int) -> int:
        """Peak bytes of activations of one call."""
        return round(rows * _value(self.activations[str(itemsize)], cells, text))

    def parameter_bytes(self, dtype: Dtype, block_share: float = 1.0) -> int:
        """Bytes of weights and tables where only `block_share` of the repeated blocks is held."""
        held = self.parameters - self.block_parameters * (1 - block_share)
        wide = self.float32_parameters * (4 - BYTES[dtype]) if dtype == "float16" else 0
        return round((held + self.buffers) * BYTES[dtype]) + wide


def costs_of(architecture: Architecture) -> dict[str, ComponentCosts]:
    """Costs of every component: the package's own counts, or counted now where it has none.

    Counting takes a few seconds once (a process of its own, which imports torch), then a cache has it.

    Raises:
        UserError: a component that cannot be counted.
    """
    counts: Mapping[str, Any] = architecture.costs or counted_costs(architecture)
    return {
        name: ComponentCosts(
            name=name,
            parameters=part["parameters"],
            buffers=part["buffers"],
            block_parameters=part["block_parameters"],
            float32_parameters=part["float32_parameters"],
            flops=part["flops"],
            activations=part["activation_bytes"],
        )
        for name, part in counts["components"].items()
    }


def _value(terms: Mapping[str, float], cells: float, text: float) -> float:
    known = {
        "1": 1.0,
        "cells": cells,
        "cells2": cells * cells,
        "text": text,
        "text2": text * text,
        "cells*text": cells * text,
    }
    return sum(factor * known[term] for term, factor in terms.items())
