"""Latte: rows of every frame shared; guidance as two halves of a batch."""

from __future__ import annotations

from parity_case import CFG, DATA, EQUAL_BATCH, FOUR, TWO, Call, Case, each
from parity_group import ByHand, Group

LATTE = "tiny/latte"
CHANGING = (Call(1), Call(2, 64, 96), Call(1, 128, 64, 1))
# The pipeline cuts a lone text to its own tokens and fills a batch's up with zeros, which count: a video
# depends on the size of its batch, so that each group has two.
SHARED = (Call(4), Call(4, 64, 96))
_NATIVE = {"engine": "diffusers", "negative": "blurred"}

_CASES = (
    Case("latte one rank", LATTE, threshold=0.0),
    *each(LATTE, TWO, calls=CHANGING, negative="blurred"),
    *each(LATTE, TWO, ", guidance 1", calls=(Call(1, 64, 96),), guidance=1.0),
    *each(LATTE, {"ulysses 2 x ring 2": FOUR["ulysses 2 x ring 2"]}, calls=(Call(1),)),
    *each(LATTE, CFG, ", diffusers", calls=CHANGING, **_NATIVE),
    *each(LATTE, DATA, calls=SHARED, threshold=EQUAL_BATCH),
    *each(LATTE, DATA, ", diffusers", calls=SHARED, threshold=EQUAL_BATCH, **_NATIVE),
)

GROUP = Group(
    by_hand={
        LATTE: ByHand(
            "LattePipeline",
            7.5,
            arguments={"clean_caption": False},
            takes_text_length=False,
            frames=9,
            frames_argument="video_length",
        )
    },
    cases=_CASES,
    faults=(
        Case(
            "latte ulysses 2 without the patch latte-temporal-attention",
            *(LATTE, TWO["ulysses 2"]),
            calls=(Call(1, 64, 96),),
            without_patches=("latte-temporal-attention",),
        ),
    ),
    quick=("latte ulysses 2", "latte ring 2, guidance 1"),
    slow=("latte ulysses 2 without the patch latte-temporal-attention",),
)
