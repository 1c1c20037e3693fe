"""HunyuanVideo: tokens shared whatever their rows, texts of even and odd numbers of tokens, cut to them."""

from __future__ import annotations

from parity_case import DATA, EQUAL_BATCH, FOUR, TWO, VAE, VAE_TOO, Call, Case, each
from parity_group import ByHand, Group

HUNYUAN = "tiny/hunyuanvideo"
# One video a rank. A height of 80 makes five rows of tokens, which two ranks share in the middle of a row.
ONE_VIDEO = (Call(1), Call(1, 80, 96), Call(1, 64, 64, 17))
SHARED = (Call(2), Call(4, 64, 96))
_PARALLEL_VAE = {**VAE, **{name: one for name, one in VAE_TOO.items() if one.pipefusion == 1}}

_CASES = (
    Case("hunyuanvideo one rank", HUNYUAN, threshold=0.0),
    *each(HUNYUAN, TWO, calls=ONE_VIDEO),
    *each(HUNYUAN, TWO, ", text 8", text_tokens=8, calls=(Call(1),)),
    *each(HUNYUAN, TWO, ", text 7", text_tokens=7, calls=(Call(1),)),
    *each(HUNYUAN, {"ulysses 2 x ring 2": FOUR["ulysses 2 x ring 2"]}, calls=(Call(1),)),
    *each(HUNYUAN, _PARALLEL_VAE, calls=ONE_VIDEO),
    *each(HUNYUAN, _PARALLEL_VAE, ", decoding", calls=(*ONE_VIDEO, Call(1, 64, 64, 33)), decoding=True),
    *each(HUNYUAN, DATA, calls=SHARED, threshold=EQUAL_BATCH),
    *each(HUNYUAN, DATA, ", diffusers", engine="diffusers", calls=SHARED, threshold=EQUAL_BATCH),
)

GROUP = Group(
    by_hand={HUNYUAN: ByHand("HunyuanVideoPipeline", 6.0, takes_negative=False, frames=9)},
    text_tokens={HUNYUAN: 256},
    cases=_CASES,
    # The shorter text of a batch is padded, and the padding attended to.
    refused=(
        Case("hunyuanvideo ulysses 2, batch of 2", HUNYUAN, TWO["ulysses 2"], calls=(Call(2),), refused=True),
    ),
    quick=("hunyuanvideo ulysses 2", "hunyuanvideo ring 2, text 8"),
)
