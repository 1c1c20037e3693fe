"""HunyuanVideo 1.5: tokens shared whatever their rows, texts cut to their own, guidance in a second call."""

from __future__ import annotations

from parity_case import CFG, CFG_FOUR, DATA, EQUAL_BATCH, FOUR, TWO, Call, Case, each
from parity_group import ByHand, Group

HUNYUAN = "tiny/hunyuanvideo1.5"
# One video a rank. A height of 80 makes five rows of tokens, which two ranks share in the middle of a row.
ONE_VIDEO = (Call(1), Call(1, 80, 96), Call(1, 64, 64, 13))
SHARED = (Call(2, 64, 64, 1), Call(2, 64, 96, 5))  # one a group: diffusers' decoder fails on more
_BOTH = {"ulysses 2 x ring 2": FOUR["ulysses 2 x ring 2"]}
_NATIVE = {"engine": "diffusers", "negative": "blurred"}
# The negative text is of an odd number of tokens with one, and of an even one with the other.
_ODD, _EVEN = "blurred", "grey"

_CASES = (
    Case("hunyuanvideo1.5 one rank", HUNYUAN, calls=ONE_VIDEO, threshold=0.0),
    *each(HUNYUAN, {**TWO, **CFG}, calls=ONE_VIDEO),
    *each(HUNYUAN, TWO, ", odd text", calls=(Call(1),), negative=_ODD),
    *each(HUNYUAN, TWO, ", even text", calls=(Call(1),), negative=_EVEN),
    *each(HUNYUAN, TWO, ", guidance 1", calls=(Call(1),), guidance=1.0),
    *each(HUNYUAN, TWO, ", latents", calls=(Call(1),), latents=True),
    *each(HUNYUAN, {**_BOTH, **CFG_FOUR}, calls=(Call(1),)),
    *each(HUNYUAN, CFG, ", diffusers", calls=(Call(1), Call(1, 64, 64, 5)), **_NATIVE),
    *each(HUNYUAN, DATA, calls=SHARED, threshold=EQUAL_BATCH),
    *each(HUNYUAN, DATA, ", diffusers", calls=SHARED, threshold=EQUAL_BATCH, **_NATIVE),
)

GROUP = Group(
    # Its scale is in its guider, whose own is the model's default.
    by_hand={
        HUNYUAN: ByHand("HunyuanVideo15Pipeline", None, takes_text_length=False, frames=9, slices_vae=True)
    },
    cases=_CASES,
    # The shorter text of a batch is padded, and the padding attended to.
    refused=(
        Case(
            "hunyuanvideo1.5 ulysses 2, batch of 2",
            *(HUNYUAN, TWO["ulysses 2"]),
            calls=(Call(2),),
            refused=True,
            latents=True,
        ),
    ),
    quick=("hunyuanvideo1.5 ulysses 2, guidance 1", "hunyuanvideo1.5 ring 2, latents"),
    slow=("hunyuanvideo1.5 ulysses 2, batch of 2",),
)
