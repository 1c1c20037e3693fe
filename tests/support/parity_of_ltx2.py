"""LTX-2: the video's tokens shared whatever their rows, its sound's whole on every rank."""

from __future__ import annotations

from parity_case import CFG, CFG_FOUR, DATA, DATA_CFG, EQUAL_BATCH, FOUR, TWO, Call, Case, each
from parity_group import ByHand, Group

LTX2 = "tiny/ltx2"
# 3 and 2 rows of tokens in 2 and 3 latent frames.
CHANGING = (Call(1, 96, 64), Call(2, 64, 64, 17))
SHARED = (Call(2, 64, 96), Call(4, 64, 64))
_BOTH = {"ulysses 2 x ring 2": FOUR["ulysses 2 x ring 2"]}
_NATIVE = {"engine": "diffusers", "negative": "blurred"}
# As the model card of LTX-2 has it; the call's own defaults are of LTX-2.3.
_ARGUMENTS = {
    "frame_rate": 8,
    "stg_scale": 0.0,
    "modality_scale": 1.0,
    "guidance_rescale": 0.0,
    "audio_guidance_scale": None,
    "audio_stg_scale": 0.0,
    "audio_modality_scale": 1.0,
    "audio_guidance_rescale": 0.0,
    "spatio_temporal_guidance_blocks": None,
    "use_cross_timestep": False,
}

_CASES = (
    Case("ltx2 one rank", LTX2, threshold=0.0),
    *each(LTX2, {**TWO, **CFG}, calls=CHANGING, negative="blurred"),
    *each(LTX2, {**TWO, **CFG}, ", latents", calls=(Call(1, 64, 96),), latents=True, negative="blurred"),
    *each(LTX2, TWO, ", guidance 1", calls=(Call(1, 64, 96),), guidance=1.0),
    *each(LTX2, TWO, ", text 48", text_tokens=48, calls=(Call(1, 64, 96),)),
    *each(LTX2, {**_BOTH, **CFG_FOUR}, calls=(Call(1, 64, 96),)),
    *each(LTX2, CFG, ", diffusers", calls=CHANGING, **_NATIVE),
    *each(LTX2, {**DATA, **DATA_CFG}, calls=SHARED, threshold=EQUAL_BATCH, negative="blurred"),
    *each(LTX2, {**DATA, **DATA_CFG}, ", diffusers", calls=SHARED, threshold=EQUAL_BATCH, **_NATIVE),
)

GROUP = Group(
    by_hand={LTX2: ByHand("LTX2Pipeline", 4.0, arguments=_ARGUMENTS, frames=9)},
    cases=_CASES,
    # xfuser pads 9 tokens and attends to the padding.
    refused=(
        Case("ltx2 ulysses 2, 9 tokens", LTX2, TWO["ulysses 2"], calls=(Call(1, 96, 96, 1),), refused=True),
    ),
    quick=("ltx2 ulysses 2, latents", "ltx2 ring 2, latents"),
    slow=("ltx2 ulysses 2, 9 tokens",),
)
