"""FLUX.2: dev in xfuser's own pipeline, klein's transformer exchanged in diffusers' one."""

from __future__ import annotations

from parity_case import (
    CFG,
    CFG_FOUR,
    CHANGING,
    DATA,
    DATA_CFG,
    DATA_FOUR,
    DATA_ONE_PATCH,
    EQUAL_BATCH,
    FOUR,
    ONE_PATCH,
    ONE_PATCH_FOUR,
    PIPEFUSION,
    SHARED,
    SYNCHRONOUS,
    TENSOR,
    TWO,
    Call,
    Case,
    each,
    without,
)
from parity_group import ByHand, Group

DEV, KLEIN = "tiny/flux2", "tiny/flux2-klein"
_ULYSSES, _RING = {"ulysses 2": TWO["ulysses 2"]}, {"ring 2": TWO["ring 2"]}
_BOTH = {"ulysses 2 x ring 2": FOUR["ulysses 2 x ring 2"]}
_PATCH_FOUR = {name: degrees for name, degrees in ONE_PATCH_FOUR.items() if degrees.pipefusion == 2}

_DEV_XDIT = (
    Case("flux2 one rank", DEV, threshold=0.0),
    *each(DEV, {**TWO, **ONE_PATCH}, calls=CHANGING),
    *each(DEV, SYNCHRONOUS),
    *each(DEV, {**DATA, **DATA_FOUR, **DATA_ONE_PATCH}, calls=SHARED, threshold=EQUAL_BATCH),
    *each(DEV, {**FOUR, **_PATCH_FOUR}),
    *each(DEV, {**TWO, **ONE_PATCH, **_BOTH}, ", text 63", text_tokens=63, calls=(Call(2),)),
    *each(DEV, {"pipefusion 2": PIPEFUSION}, ", no stale tokens", blind=True, steps=4),
)
_KLEIN_XDIT = (
    Case("flux2-klein one rank", KLEIN, threshold=0.0),
    *each(KLEIN, {**TWO, **CFG}, calls=CHANGING),
    *each(KLEIN, {**FOUR, **CFG_FOUR}),
    *each(KLEIN, {**DATA, **DATA_FOUR, **DATA_CFG}, calls=SHARED, threshold=EQUAL_BATCH),
    *each(KLEIN, TWO, ", guidance 1", guidance=1.0),
)


def _native(model: str, guided: bool) -> tuple[Case, ...]:
    options = {"engine": "diffusers"}
    two = {**TWO, **TENSOR, **(CFG if guided else {})}
    four = {**_BOTH, **(CFG_FOUR if guided else {})}
    data = {**DATA, **DATA_FOUR, **(DATA_CFG if guided else {})}
    return (
        *each(model, two, ", diffusers", calls=CHANGING, **options),
        *each(model, four, ", diffusers", **options),
        *each(model, data, ", diffusers", calls=SHARED, threshold=EQUAL_BATCH, **options),
        *each(model, TWO, ", text 63, diffusers", text_tokens=63, **options),
    )


GROUP = Group(
    by_hand={
        DEV: ByHand("Flux2Pipeline", 4.0, takes_negative=False),
        KLEIN: ByHand("Flux2KleinPipeline", 4.0, takes_negative=False),
    },
    cases=(*_DEV_XDIT, *_native(DEV, guided=False), *_KLEIN_XDIT, *_native(KLEIN, guided=True)),
    approximate=tuple(each(DEV, {"pipefusion 2": PIPEFUSION}, steps=4)),
    faults=(
        without("flux2-uneven-text", DEV, text_tokens=63),
        without("flux2-pipefusion-cache", DEV, PIPEFUSION, steps=4),
    ),
    quick=(
        *("flux2 ulysses 2", "flux2 ring 2, text 63", "flux2 pipefusion 2, one patch"),
        *("flux2-klein ring 2", "flux2-klein cfg 2", "flux2-klein data 2 x cfg 2, diffusers"),
    ),
)
