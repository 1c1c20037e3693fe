"""Deterministic classes of the images of a class-conditional model, which no prompt steers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlenergy.diffusion.prompts.sampling import ALGORITHM, PromptSet, Request, Stream, shuffled_rows

IN_TURN = "v1: the classes that were given, in turn; the warm-up takes them from the first one"


def class_requests(
    classes: int, chosen: Sequence[int], count: int, seed: int, warmup_count: int, dataset: str
) -> PromptSet:
    """Requests of a class each: the chosen ones in turn, or all of the model's, shuffled by the seed.

    Drawn classes come without replacement until each has been used, as prompts do.

    Args:
        classes: labels of the model, from 0.
        chosen: labels; empty draws them.
        count: measured images.
        seed: of the draw; image i gets noise seed `seed + i`.
        warmup_count: images of the warm-up, from a stream of its own.
        dataset: of the plan; nothing of it is read here.
    """
    streams: dict[Stream, int] = {"measured": count, "warmup": warmup_count}
    measured, warmup = (
        _requests([chosen[i % len(chosen)] for i in range(number)], seed)
        if chosen
        else _requests(shuffled_rows(classes, number, seed, stream), seed)
        for stream, number in streams.items()
    )
    provenance: dict[str, Any] = {
        "condition": "class",
        "note": "class-conditional: prompts do not steer these images, and none was read",
        "source": "class_ids" if chosen else "classes",
        "dataset": dataset,
        "classes": classes,
        "class_ids": list(chosen),
        "prompts_in_set": None,
        "prompts_sha256": None,
        "prompt_prefix": "",
        "seed": seed,
        "image_seed": "seed + index",
        "algorithm": IN_TURN if chosen else ALGORITHM,
    }
    return PromptSet(measured, warmup, provenance)


def _requests(labels: Sequence[int], seed: int) -> tuple[Request, ...]:
    return tuple(
        Request(index, f"class {label}", seed + index, None, label) for index, label in enumerate(labels)
    )
