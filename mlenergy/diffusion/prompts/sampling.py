"""Deterministic requests from a set of prompts, shared by all ranks and cut into batches.

The same options and seed draw the same requests on every machine and Python version.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts.pool import Pool
from mlenergy.diffusion.prompts.sources import load_pool

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan, PromptOrder

# The two streams never share draws, so more or fewer warm-up iterations leave the measured prompts alone.
Stream = Literal["measured", "warmup"]

# Recorded in every result. A change of the algorithm changes this name, never its meaning.
ALGORITHM = (
    "v1: round r of a stream is a Fisher-Yates shuffle of the whole set, j = floor(random() * (i + 1)) for i "
    "from the last to 1, random() being MT19937 seeded with the big-endian integer SHA-256 of "
    "'STREAM:SEED:r'; rounds follow each other until there are enough"
)
FILE_ORDER = (
    "v1: the set's own order from its first prompt, each once; the warm-up takes the same prompts from the "
    "first one, and starts over where they do not suffice"
)


@dataclass(frozen=True)
class Request:
    """One image to make."""

    index: int  # from 0, in the order of generation
    prompt: str  # as the model gets it, prefix and all
    seed: int  # of the image's noise: the run's seed + index
    category: str | None  # as the set names it; None where it has none
    class_id: int | None = None  # that steers a class-conditional model; None where the prompt does


@dataclass(frozen=True)
class PromptOptions:
    """The source of the prompts, the text put before each, and their order."""

    dataset: str
    column: str = TextToImage.prompt_column
    prefix: str = ""
    order: PromptOrder = "shuffled"

    @classmethod
    def from_plan(cls, plan: Plan) -> PromptOptions:
        """The options that a plan holds."""
        return cls(plan.dataset, plan.prompt_column, plan.prompt_prefix, plan.prompt_order)


@dataclass(frozen=True)
class PromptSet:
    """The requests of a run, in order, and how anyone can draw them again."""

    requests: tuple[Request, ...]
    warmup_requests: tuple[Request, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)


def sample_requests(options: PromptOptions, count: int, seed: int, warmup_count: int = 0) -> PromptSet:
    """Draw `count` measured and `warmup_count` warm-up requests from one source.

    Shuffled, prompts come without replacement until the set is exhausted; it is then shuffled anew. In the
    set's own order each comes once. A smaller count gives the beginning of a larger one. Image i gets noise
    seed `seed + i`.

    Raises:
        UserError: the source is missing, empty, unreachable, or lacks the column; or it has fewer prompts
            than there are images, in its own order.
    """
    if count < 1:
        raise UserError(f"there are {count} images to make; ask for at least one batch of one image")
    pool = load_pool(options.dataset, options.column)
    size, in_file_order = len(pool.prompts), options.order == "file"
    if in_file_order and count > size:
        raise UserError(
            f"--workload.prompt_order file takes each prompt once, and {options.dataset} has {size} for "
            f"{count} images; ask for fewer images, or leave the option out, so that prompts repeat"
        )
    provenance = {
        **pool.provenance,
        "prompts_in_set": size,
        "prompts_sha256": pool.sha256,
        "prompt_prefix": options.prefix,
        "prompt_order": options.order,
        "seed": seed,
        "image_seed": "seed + index",
        "algorithm": FILE_ORDER if in_file_order else ALGORITHM,
    }
    streams: dict[Stream, int] = {"measured": count, "warmup": warmup_count}
    rows = {
        stream: [i % size for i in range(number)]
        if in_file_order
        else shuffled_rows(size, number, seed, stream)
        for stream, number in streams.items()
    }
    measured, warmup = (_requests(pool, options.prefix, rows[stream], seed) for stream in streams)
    return PromptSet(measured, warmup, provenance)


def batches_of(requests: Sequence[Request], batch_size: int) -> list[Batch]:
    """Full batches in order; the number of requests is a multiple of the batch size."""
    starts = range(0, len(requests), batch_size)
    parts = [requests[start : start + batch_size] for start in starts]
    return [
        Batch(
            tuple(r.prompt for r in part),
            tuple(r.seed for r in part),
            tuple(r.class_id for r in part if r.class_id is not None),
        )
        for part in parts
    ]


def _requests(pool: Pool, prefix: str, rows: Sequence[int], seed: int) -> tuple[Request, ...]:
    return tuple(
        Request(i, _with_prefix(prefix, pool.prompts[row]), seed + i, pool.categories[row])
        for i, row in enumerate(rows)
    )


def shuffled_rows(size: int, count: int, seed: int, stream: Stream) -> list[int]:
    """The first `count` rows of as many rounds over the set as it takes."""
    rows: list[int] = []
    shuffles = 0
    while len(rows) < count:
        rows += _shuffled(size, f"{stream}:{seed}:{shuffles}")
        shuffles += 1
    return rows[:count]


def _shuffled(size: int, key: str) -> list[int]:
    """A permutation of range(size). Only random() is used: Python promises its sequence, not shuffle()'s."""
    generator = random.Random(int.from_bytes(hashlib.sha256(key.encode()).digest(), "big"))
    order = list(range(size))
    for last in range(size - 1, 0, -1):
        chosen = int(generator.random() * (last + 1))
        order[last], order[chosen] = order[chosen], order[last]
    return order


def _with_prefix(prefix: str, prompt: str) -> str:
    """The prefix, one space where it does not end in white space, and the prompt."""
    if not prefix:
        return prompt
    return f"{prefix}{prompt}" if prefix[-1].isspace() else f"{prefix} {prompt}"
