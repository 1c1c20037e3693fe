"""Wan 2.1 and 2.2: tokens shared whatever their rows, guidance in a second call, one denoiser or two."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from parity_case import (
    CFG,
    CFG_FOUR,
    DATA,
    DATA_CFG,
    DATA_FOUR,
    EQUAL_BATCH,
    FOUR,
    TWO,
    VAE,
    VAE_CFG,
    VAE_TOO,
    Call,
    Case,
    each,
)
from parity_group import ByHand, Group

WAN, WAN22, TI2V = "tiny/wan", "tiny/wan2.2", "tiny/wan2.2-ti2v"
# A height of 80 makes five rows of tokens, which two ranks share in the middle of a row.
CHANGING = (Call(1, 64, 96), Call(2, 64, 64, 13), Call(1, 80, 64))
SHARED = (Call(2, 64, 96), Call(4, 64, 64, 5))
LARGE_CELLS = (Call(1, 64, 96), Call(2, 96, 64, 13))  # of 16 pixels
_PARALLEL_VAE = {**VAE, **{name: one for name, one in VAE_TOO.items() if one.pipefusion == 1}, **VAE_CFG}
_BOTH = {"ulysses 2 x ring 2": FOUR["ulysses 2 x ring 2"]}


def _by_both_engines(cases: Iterable[Case]) -> Iterable[Case]:
    for case in cases:
        yield case
        yield replace(case, name=f"{case.name}, diffusers", engine="diffusers")


_CASES = (
    *(Case(f"{model.removeprefix('tiny/')} one rank", model, threshold=0.0) for model in (WAN, WAN22, TI2V)),
    *_by_both_engines(each(WAN, {**TWO, **CFG}, calls=CHANGING, negative="blurred")),
    *_by_both_engines(
        each(WAN, {**TWO, **CFG}, ", latents", calls=(Call(1, 64, 96),), steps=4, latents=True)
    ),
    *_by_both_engines(each(WAN, TWO, ", guidance 1", calls=(Call(1, 64, 96),), guidance=1.0)),
    *_by_both_engines(each(WAN, {**_BOTH, **CFG_FOUR}, calls=(Call(1, 64, 96),))),
    *each(WAN, {name: FOUR[name] for name in ("ulysses 4", "ring 4")}, calls=(Call(1, 64, 96),)),
    *_by_both_engines(each(WAN, {**DATA, **DATA_CFG}, calls=SHARED, threshold=EQUAL_BATCH)),
    *each(WAN, DATA_FOUR, calls=SHARED, threshold=EQUAL_BATCH),
    *each(WAN, _PARALLEL_VAE, calls=CHANGING),
    *_by_both_engines(each(WAN22, {**TWO, **CFG}, calls=(Call(1, 64, 96), Call(2)), steps=4)),
    *_by_both_engines(each(WAN22, TWO, ", latents", calls=(Call(1, 64, 96),), steps=4, latents=True)),
    *each(WAN22, {**_BOTH, **CFG_FOUR}, calls=(Call(1, 64, 96),), steps=4),
    *_by_both_engines(each(TI2V, {**TWO, **CFG}, calls=LARGE_CELLS)),
    *_by_both_engines(each(TI2V, TWO, ", latents", calls=(Call(1, 64, 96),), steps=4, latents=True)),
    *each(TI2V, VAE, calls=LARGE_CELLS),
    *each(WAN, _PARALLEL_VAE, ", decoding", calls=CHANGING, decoding=True),
    *each(TI2V, VAE, ", decoding", calls=LARGE_CELLS, decoding=True),
)

GROUP = Group(
    by_hand={
        WAN: ByHand("WanPipeline", 5.0, frames=9),
        WAN22: ByHand("WanPipeline", 5.0, arguments={"guidance_scale_2": 3.0}, frames=9),
        TI2V: ByHand("WanPipeline", 5.0, frames=9),
    },
    cases=_CASES,
    # xfuser pads 45 tokens and attends to the padding.
    refused=(
        Case("wan ulysses 2, 45 tokens", WAN, TWO["ulysses 2"], calls=(Call(1, 48, 80),), refused=True),
    ),
    quick=(
        *("wan ring 2, latents", "wan ulysses 2, parallel vae, decoding", "wan2.2 cfg 2, diffusers"),
        *("wan2.2 ulysses 2", "wan2.2-ti2v ring 2, diffusers"),
    ),
)
