"""The compute capability of NVIDIA GPUs by their product's name, where no GPU can be asked; no torch."""

from __future__ import annotations

import re

# First number of the capability -> words of names, as the driver writes them (NVIDIA H100 80GB HBM3).
_WORDS = {
    7: ("V100", "T4", "TITAN RTX"),
    8: (
        "A100",
        "A800",
        "A40",
        "A30",
        "A10",
        "A10G",
        "A16",
        "L4",
        "L40",
        "L40S",
        "RTX 3090",
        "RTX 4090",
        "A6000",
    ),
    9: ("H100", "H200", "H800", "H20", "GH200"),
    10: ("B100", "B200", "B300", "GB200", "GB300"),
    12: ("RTX 5090", "RTX PRO 6000"),
}


def capability_of(name: str) -> int | None:
    """The first number of a GPU's compute capability; None for a name that is not known here."""
    for major, words in _WORDS.items():
        if any(re.search(rf"\b{re.escape(word)}\b", name) for word in words):
            return major
    return None
