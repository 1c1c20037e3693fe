"""LTX-Video: tokens of 32x32 pixels shared whatever their rows, and a text that every rank holds."""

from __future__ import annotations

from parity_case import CFG, CFG_FOUR, DATA, DATA_CFG, DATA_FOUR, EQUAL_BATCH, FOUR, TWO, Call, Case, each
from parity_group import ByHand, Group

LTX = "tiny/ltx"
# 3, 2 and 1 rows of tokens in 2, 3 and 2 latent frames.
CHANGING = (Call(1, 96, 64), Call(2, 64, 64, 17), Call(1, 32, 96))
SHARED = (Call(2, 64, 96), Call(4, 64, 64))
_BOTH = {"ulysses 2 x ring 2": FOUR["ulysses 2 x ring 2"]}
_NATIVE = {"engine": "diffusers", "negative": "blurred"}

_CASES = (
    *each(LTX, {**TWO, **CFG}, ", diffusers", calls=CHANGING, **_NATIVE),
    *each(LTX, {**TWO, **CFG}, ", latents", calls=(Call(1, 64, 96),), latents=True, **_NATIVE),
    *each(LTX, TWO, ", guidance 1, diffusers", calls=(Call(1, 64, 96),), guidance=1.0, engine="diffusers"),
    *each(LTX, TWO, ", text 63, diffusers", text_tokens=63, calls=(Call(1, 64, 96),), **_NATIVE),
    *each(LTX, {**_BOTH, **CFG_FOUR}, ", diffusers", calls=(Call(1, 64, 96),), **_NATIVE),
    *each(
        LTX, {**DATA, **DATA_CFG, **DATA_FOUR}, ", diffusers", calls=SHARED, threshold=EQUAL_BATCH, **_NATIVE
    ),
)

GROUP = Group(
    by_hand={LTX: ByHand("LTXPipeline", 3.0, arguments={"frame_rate": 8}, frames=9)},
    cases=_CASES,
    faults=(
        Case(
            "ltx ring 2 without the patch ltx-text-split",
            *(LTX, TWO["ring 2"], "diffusers"),
            calls=(Call(1, 64, 96),),
            without_patches=("ltx-text-split",),
        ),
    ),
    quick=("ltx ulysses 2, latents", "ltx ring 2, latents"),
)
