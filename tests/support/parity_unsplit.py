"""Parity cases of the models that share batches and no image: one process, and data-parallel groups."""

from __future__ import annotations

from dataclasses import replace

from parity_case import DATA, SHARED, TWO_BATCHES, Call, Case, each
from parity_group import ByHand, Group

_CALLS = {
    "tiny/hidream": ByHand("HiDreamImagePipeline", 5.0),
    "tiny/chroma": ByHand("ChromaPipeline", 3.0),
    "tiny/auraflow": ByHand("AuraFlowPipeline", 3.5),
    "tiny/kolors": ByHand("KolorsPipeline", 5.0),
    "tiny/cogview4": ByHand("CogView4Pipeline", 3.5),
    # Its scale is in its guiders, whose own is the model's default.
    "tiny/hunyuanimage": ByHand("HunyuanImagePipeline", None, takes_text_length=False),
}
# Sizes that HiDream makes, and that 64 divides for HunyuanImage.
_ONE = {"tiny/hidream": (Call(1, 256, 256),)}
_SHARED = {"tiny/hidream": (Call(2, 256, 256),), "tiny/hunyuanimage": (Call(2), Call(4, 64, 128))}
# CogView4 pads texts to the longest of their batch (and to a multiple of 16) without a mask, so that an image
# depends on the prompts beside it: at one length for all it does not.
_TEXT = {"tiny/cogview4": 16}


def _cases(model: str) -> tuple[Case, ...]:
    cases = (
        Case(
            f"{model.removeprefix('tiny/')} one rank",
            model,
            calls=_ONE.get(model, TWO_BATCHES),
            threshold=0.0,
        ),
        *each(model, DATA, calls=_SHARED.get(model, SHARED), negative="blurred"),
    )
    return tuple(replace(case, engine="diffusers", text_tokens=_TEXT.get(model)) for case in cases)


UNSPLIT = Group(
    by_hand=_CALLS,
    cases=tuple(case for model in _CALLS for case in _cases(model)),
    quick=("kolors data 2", "cogview4 data 2"),
)
