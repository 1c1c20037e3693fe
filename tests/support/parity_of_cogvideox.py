"""CogVideoX: rows of every frame shared, with and without rotary positions, frames by one and in pairs."""

from __future__ import annotations

from parity_case import (
    CFG,
    CFG_FOUR,
    DATA,
    EQUAL_BATCH,
    FOUR,
    TWO,
    Call,
    Case,
    each,
)
from parity_group import ByHand, Group

ROTARY, TABLE, PAIRS = "tiny/cogvideox", "tiny/cogvideox-2b", "tiny/cogvideox1.5"
# Batch, shape and number of frames change between calls.
CHANGING = (Call(1), Call(2, 64, 96, 17), Call(1, 128, 64, 1))
SHARED = (Call(2), Call(4, 64, 96))
_BOTH = {"ulysses 2 x ring 2": FOUR["ulysses 2 x ring 2"]}
_NATIVE = {"engine": "diffusers", "negative": "blurred"}


def _of(model: str) -> tuple[Case, ...]:
    return (
        Case(f"{model.removeprefix('tiny/')} one rank", model, threshold=0.0),
        *each(model, {**TWO, **CFG}, calls=CHANGING, negative="blurred"),
        *each(model, CFG, ", diffusers", calls=CHANGING, **_NATIVE),
    )


_CASES = (
    *(case for model in (ROTARY, TABLE, PAIRS) for case in _of(model)),
    *each(ROTARY, TWO, ", text 63", text_tokens=63),
    *each(ROTARY, {**_BOTH, "cfg 2 x ulysses 2": CFG_FOUR["cfg 2 x ulysses 2"]}, calls=(Call(1),)),
    *each(ROTARY, DATA, calls=SHARED, threshold=EQUAL_BATCH),
    *each(ROTARY, DATA, ", diffusers", calls=SHARED, threshold=EQUAL_BATCH, **_NATIVE),
)

GROUP = Group(
    by_hand={model: ByHand("CogVideoXPipeline", 6.0, frames=9) for model in (ROTARY, TABLE, PAIRS)},
    text_tokens=dict.fromkeys((ROTARY, TABLE, PAIRS), 226),
    cases=_CASES,
    quick=(
        *("cogvideox-2b ulysses 2", "cogvideox1.5 ring 2", "cogvideox ulysses 2, text 63"),
        "cogvideox cfg 2, diffusers",
    ),
)
