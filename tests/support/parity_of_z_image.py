"""Z-Image: rows in lists, texts as long as the prompts, guidance above a scale of 0."""

from __future__ import annotations

from parity_case import (
    CFG,
    CFG_FOUR,
    CHANGING,
    DATA,
    DATA_CFG,
    DATA_FOUR,
    EQUAL_BATCH,
    FOUR,
    SHARED,
    TWO,
    Call,
    Case,
    each,
    without,
)
from parity_group import ByHand, Group

Z_IMAGE = "tiny/z-image"
ONE_IMAGE = (Call(1), Call(1, 64, 96), Call(1, 128, 64))
ONE_EACH = (Call(2), Call(2, 64, 96))
_NATIVE = {"engine": "diffusers", "negative": "blurred"}

# Without guidance where ranks share a sequence alone: they take one row each.
_CASES = (
    Case("z-image one rank", Z_IMAGE, threshold=0.0),
    *each(Z_IMAGE, {**TWO, **FOUR}, ", guidance 0", guidance=0.0, calls=ONE_IMAGE),
    *each(Z_IMAGE, CFG, calls=CHANGING, negative="blurred"),
    *each(Z_IMAGE, CFG_FOUR, calls=ONE_IMAGE, negative="blurred, grey and much too dark"),
    *each(Z_IMAGE, {**DATA, **DATA_CFG}, calls=SHARED, threshold=EQUAL_BATCH),
    *each(Z_IMAGE, DATA_FOUR, ", guidance 0", guidance=0.0, calls=ONE_EACH, threshold=EQUAL_BATCH),
    *each(Z_IMAGE, CFG, ", diffusers", calls=CHANGING, **_NATIVE),
    *each(Z_IMAGE, {**DATA, **DATA_CFG}, ", diffusers", calls=SHARED, threshold=EQUAL_BATCH, **_NATIVE),
)

GROUP = Group(
    by_hand={Z_IMAGE: ByHand("ZImagePipeline", 4.0)},
    text_tokens={Z_IMAGE: 512},
    cases=_CASES,
    faults=(without("z-image-arguments", Z_IMAGE, guidance=0.0),),
    quick=("z-image ring 2, guidance 0", "z-image cfg 2 x ulysses 2", "z-image data 2 x cfg 2, diffusers"),
)
