"""Parity cases of Lumina 2: guidance by calls, Ulysses with texts of different lengths."""

from __future__ import annotations

from dataclasses import replace

from parity_case import (
    CFG,
    CFG_FOUR,
    CHANGING,
    DATA,
    DATA_CFG,
    DATA_FOUR,
    EQUAL_BATCH,
    SHARED,
    TWO,
    Case,
    each,
)
from parity_group import ByHand, Group

_LUMINA = "tiny/lumina2"
_ULYSSES = {"ulysses 2": TWO["ulysses 2"]}
_BESIDE = {name: degrees for name, degrees in (CFG_FOUR | DATA_FOUR | DATA_CFG).items() if degrees.ring == 1}
_CASES = (
    Case("lumina2 one rank", _LUMINA, threshold=0.0),
    *each(_LUMINA, _ULYSSES | CFG, calls=CHANGING, negative="blurred"),
    *each(_LUMINA, DATA | _BESIDE, calls=SHARED, threshold=EQUAL_BATCH),
    *each(_LUMINA, _ULYSSES, ", guidance 1", guidance=1.0),
    *(
        replace(case, name=f"{case.name}, diffusers", engine="diffusers")
        for case in (
            *each(_LUMINA, CFG, calls=CHANGING, negative="blurred"),
            *each(_LUMINA, DATA | DATA_CFG, calls=SHARED, threshold=EQUAL_BATCH),
        )
    ),
)

LUMINA2 = Group(
    by_hand={_LUMINA: ByHand("Lumina2Pipeline", 4.0)},
    text_tokens={_LUMINA: 256},
    # Its pipeline writes a hundred tokens of the tiny vocabulary before each prompt.
    cases=tuple(replace(case, text_tokens=256) for case in _CASES),
)
