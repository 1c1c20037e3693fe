"""Qwen-Image: texts as long as the prompts, of which some are uneven; guidance in a second call."""

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
    TENSOR,
    TWO,
    Call,
    Case,
    each,
    without,
)
from parity_group import ByHand, Group

QWEN = "tiny/qwen-image"
# With one image a rank no text is padded. In these calls the text has an even and an odd number of tokens:
# a limit cuts the prompt's 11 tokens and the template's 5 after it.
ONE_IMAGE = (Call(1), Call(1, 64, 96), Call(1, 128, 64))
ONE_EACH = (Call(2), Call(2, 64, 96))
_ULYSSES = {"ulysses 2": TWO["ulysses 2"]}
_BOTH = {"ulysses 2 x ring 2": FOUR["ulysses 2 x ring 2"]}
_NATIVE = {"engine": "diffusers", "negative": "blurred"}

_CASES = (
    Case("qwen-image one rank", QWEN, threshold=0.0),
    *each(QWEN, TWO, calls=ONE_IMAGE, negative="blurred"),
    *each(QWEN, {**TWO, **_BOTH}, ", text 9", text_tokens=9, calls=(Call(1),)),
    *each(QWEN, TWO, ", text 10", text_tokens=10, calls=(Call(1),)),
    *each(QWEN, FOUR, calls=(Call(1),)),
    *each(QWEN, TWO, ", guidance 1", guidance=1.0, calls=(Call(1),)),
    *each(QWEN, CFG, calls=CHANGING, negative="blurred, grey and much too dark"),
    *each(QWEN, CFG_FOUR, calls=ONE_IMAGE),
    *each(QWEN, {**DATA, **DATA_CFG}, calls=SHARED, threshold=EQUAL_BATCH),
    *each(QWEN, DATA_FOUR, calls=ONE_EACH, threshold=EQUAL_BATCH),
    *each(QWEN, {**_ULYSSES, **CFG, **TENSOR}, ", diffusers", calls=CHANGING, **_NATIVE),
    *each(QWEN, {"ring 2": TWO["ring 2"]}, ", diffusers", calls=ONE_IMAGE, **_NATIVE),
    *each(QWEN, TWO, ", text 9, diffusers", text_tokens=9, calls=(Call(1),), **_NATIVE),
    *each(QWEN, CFG_FOUR, ", diffusers", calls=ONE_IMAGE, **_NATIVE),
    *each(QWEN, {**DATA, **DATA_CFG}, ", diffusers", calls=SHARED, threshold=EQUAL_BATCH, **_NATIVE),
    *each(QWEN, DATA_FOUR, ", diffusers", calls=ONE_EACH, threshold=EQUAL_BATCH, **_NATIVE),
)

GROUP = Group(
    by_hand={
        QWEN: ByHand("QwenImagePipeline", 4.0, guidance_argument="true_cfg_scale", default_negative=" "),
    },
    text_tokens={QWEN: 512},
    cases=_CASES,
    faults=(without("qwen-uneven-text", QWEN, text_tokens=9),),
    quick=(
        *("qwen-image ulysses 2, text 9", "qwen-image ring 2, text 10", "qwen-image cfg 2"),
        *("qwen-image ulysses 2, diffusers", "qwen-image ulysses 2, text 9, diffusers"),
    ),
)
