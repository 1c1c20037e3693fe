"""The parity cases and the references of one file of families, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parity_case import Case


@dataclass(frozen=True)
class ByHand:
    """How diffusers' documentation calls a tiny model's pipeline.

    pipeline: class name in diffusers.
    guidance: scale, where a case names none; None where the pipeline takes none.
    guidance_argument: the scale's name in the call.
    arguments: others that only this class has.
    default_negative: negative prompt, where a case names none and the pipeline needs one for guidance.
    """

    pipeline: str
    guidance: float | None
    guidance_argument: str = "guidance_scale"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    takes_text_length: bool = True
    takes_negative: bool = True
    frames: int | None = None  # of a video, where a call names none; None: it makes images
    frames_argument: str = "num_frames"
    slices_vae: bool = False  # diffusers' decoder fails on a batch
    default_negative: str | None = None


@dataclass(frozen=True)
class Group:
    """What one file of families adds; meanings as in parity_cases.py."""

    by_hand: Mapping[str, ByHand]  # tiny model -> its call
    cases: tuple[Case, ...]
    approximate: tuple[Case, ...] = ()
    refused: tuple[Case, ...] = ()
    faults: tuple[Case, ...] = ()
    quick: tuple[str, ...] = ()  # names of the cases that `make test` serves, beside the others' pairs
    slow: tuple[str, ...] = ()  # names of refused cases and of faults that it leaves to `make test-all`
    text_tokens: Mapping[str, int] = field(default_factory=dict)  # default text length, where it is not 64
