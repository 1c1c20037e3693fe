"""Parity cases of Sana: guidance on two processes, and data-parallel groups."""

from __future__ import annotations

from parity_case import CFG, CHANGING, DATA, DATA_CFG, EQUAL_BATCH, SHARED, Case, each
from parity_group import ByHand, Group

_SANA = "tiny/sana"

SANA = Group(
    by_hand={
        _SANA: ByHand(
            "SanaPipeline", 5.0, arguments={"use_resolution_binning": False, "clean_caption": False}
        )
    },
    cases=(
        Case("sana one rank", _SANA, threshold=0.0),
        *each(_SANA, CFG, calls=CHANGING, negative="blurred"),
        *each(_SANA, DATA | DATA_CFG, calls=SHARED, threshold=EQUAL_BATCH),
        *each(_SANA, CFG, ", diffusers", engine="diffusers", calls=CHANGING, negative="blurred"),
        *each(_SANA, DATA | DATA_CFG, ", diffusers", engine="diffusers", calls=SHARED, threshold=EQUAL_BATCH),
    ),
)
