"""Memory that a model needs on a card, and the smallest common card that has it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_MIB = 1 << 20


@dataclass(frozen=True)
class Card:
    """A GPU that one can buy or rent."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Requirement:
    """Bytes that one run needs of a card.

    minimum: what lay on the card at the peak: the allocator's tensors, and what the driver's context takes.
    recommended: what the run held of the card, with a margin: an allocator holds more than its tensors, since
        blocks do not fit exactly.
    doubt: why they may be wrong.
    """

    minimum_bytes: int
    recommended_bytes: int
    doubt: str | None = None


def requirement_of(
    peak_bytes: int, reserved_bytes: int, driver_used_bytes: int | None, shared: bool, margin: float
) -> Requirement:
    """The requirement that a run's memory shows.

    Args:
        peak_bytes: the allocator's peak.
        reserved_bytes: the most that the allocator held.
        driver_used_bytes: in use on the whole card after the last window, other processes' included.
        shared: other processes used the card meanwhile.
        margin: share added to what was held.
    """
    doubt = None
    if driver_used_bytes is None or shared:
        driver_used_bytes = None
        why = "other processes used the card" if shared else "the driver did not tell what is in use"
        doubt = f"without what the driver's context takes: {why}"
    context_bytes = 0 if driver_used_bytes is None else max(0, driver_used_bytes - reserved_bytes)
    held_bytes = reserved_bytes + context_bytes
    return Requirement(peak_bytes + context_bytes, round(held_bytes * (1 + margin)), doubt)


def smallest_card(needed_bytes: int) -> Card | None:
    """The smallest common card with so much memory; None where none has it."""
    return min(
        (card for card in cards() if card.memory_bytes >= needed_bytes),
        key=lambda card: card.memory_bytes,
        default=None,
    )


@cache
def cards() -> tuple[Card, ...]:
    """The common cards of data/gpu_cards.json."""
    text = (resources.files("mlenergy.diffusion") / "data" / "gpu_cards.json").read_text("utf-8")
    return tuple(Card(one["name"], one["memory_mib"] * _MIB) for one in json.loads(text)["cards"])


def card_of(content: Mapping[str, Any]) -> Card | str:
    """The card on which a run's peak was, or the reason why it is not known.

    Args:
        content: of results.json.
    """
    environment, memory = content["environment"], content["memory"]
    devices = environment.get("devices") or ()
    rank = memory.get("peak_rank")
    device = devices[rank] if rank is not None and rank < len(devices) else None
    if device is None:
        return "the run's GPU is not known, or is a slice of one"
    for node in environment.get("nodes") or ():
        for gpu in node.get("gpus") or ():
            if gpu.get("uuid") == device["uuid"] and gpu.get("memory_bytes"):
                return Card(str(device["name"]), int(gpu["memory_bytes"]))
    return "the driver did not tell the card's memory"
