"""The parity cases as data, shared by the tests, the worker that torchrun starts, and the page.

Those of families added since the first list are in files of their own, which GROUPS joins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

from parity_case import (
    CFG,
    CFG_FOUR,
    CHANGING,
    DATA,
    DATA_CFG,
    DATA_FOUR,
    DATA_ONE_PATCH,
    DATA_PIPEFUSION,
    EQUAL_BATCH,
    FOUR,
    ONE_PATCH,
    ONE_PATCH_CFG,
    ONE_PATCH_FOUR,
    PIPEFUSION,
    SHARED,
    SYNCHRONOUS,
    TENSOR,
    TWO,
    TWO_BATCHES,
    VAE,
    VAE_CFG,
    VAE_TOO,
    Call,
    Case,
    each,
    without,
)
from parity_groups import GROUPS

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.models.listed import BY_ID

GUIDED = ("tiny/sd3", "tiny/sd3.5", "tiny/pixart-alpha", "tiny/pixart-sigma", "tiny/hunyuandit")
TRANSFORMERS = ("tiny/flux", *GUIDED)
UNETS = ("tiny/sdxl", "tiny/sd1.5")
FIXED_TEXT = ("tiny/hunyuandit", *UNETS)


def _xdit(model: str) -> Iterable[Case]:
    """Every mode of one of xfuser's transformers, where it is easy and where it was seen to go wrong."""
    guided = model in GUIDED
    negative = "blurred" if guided else None
    yield Case(f"{model.removeprefix('tiny/')} one rank", model, threshold=0.0)
    easy = {**TWO, **ONE_PATCH, **VAE, **(CFG if guided else {})}
    yield from each(model, easy, calls=CHANGING, negative=negative)
    yield from each(model, SYNCHRONOUS)
    yield from each(model, {**VAE_TOO, **(VAE_CFG if guided else {})}, calls=(Call(2, 64, 96),))
    shared = {**DATA, **DATA_FOUR, **DATA_ONE_PATCH, **(DATA_CFG if guided else {})}
    yield from each(model, shared, calls=SHARED, threshold=EQUAL_BATCH)
    yield from each(model, {**FOUR, **ONE_PATCH_FOUR, **({**CFG_FOUR, **ONE_PATCH_CFG} if guided else {})})
    if model not in FIXED_TEXT:
        # With the default of 64 tokens, SD3's text is 141 long: its even length is the other one.
        other = 51 if "sd3" in model else 63
        yield from each(
            model,
            {**TWO, **ONE_PATCH, "ulysses 2 x ring 2": FOUR["ulysses 2 x ring 2"]},
            f", text {other}",
            text_tokens=other,
            calls=(Call(2),),
        )
    if guided:
        yield from each(model, TWO, ", guidance 1", guidance=1.0)
        yield from each(model, {"ulysses 2": TWO["ulysses 2"]}, ", guidance 0", guidance=0.0)
    if guided and model != "tiny/hunyuandit":
        yield from each(model, ONE_PATCH, ", guidance 1", guidance=1.0)


def _xdit_alone() -> Iterable[Case]:
    """What only one family has."""
    yield Case("sdxl one rank", "tiny/sdxl", threshold=0.0)
    yield from each("tiny/sdxl", CFG, calls=CHANGING, negative="blurred")
    yield Case("sdxl cfg 2, parallel vae", "tiny/sdxl", Parallelism(cfg=2, parallel_vae=True))
    yield Case("flux tensor 2", "tiny/flux", Parallelism(tensor=2), calls=CHANGING)
    data = Parallelism(tensor=2, data=2)
    yield Case("flux tensor 2 x data 2", "tiny/flux", data, calls=SHARED, threshold=EQUAL_BATCH)
    uneven = Parallelism(pipefusion=4, num_pipeline_patch=1, parallel_vae=True)
    yield Case(
        "flux pipefusion 4, one patch, parallel vae of 10 rows", "tiny/flux", uneven, calls=(Call(1, 80),)
    )


def _stale(model: str) -> Iterable[Case]:
    """PipeFusion with several patches: right but for its stale activations, alike wherever it runs."""
    both = {**ONE_PATCH_FOUR, **(ONE_PATCH_CFG if model in GUIDED else {})}
    beside = {
        name: replace(degrees, num_pipeline_patch=2)
        for name, degrees in both.items()
        if degrees.pipefusion == 2
    }
    yield from each(model, {"pipefusion 2": PIPEFUSION}, ", no stale tokens", blind=True, steps=4)
    for name, degrees in beside.items():
        yield Case(
            f"{model.removeprefix('tiny/')} {name.replace(', one patch', '')}, stale alike",
            *(model, degrees),
            calls=(Call(2, 128, 64),),
            steps=3,
            against=DATA_PIPEFUSION,
            threshold=EQUAL_BATCH,
        )


def _native(model: str) -> Iterable[Case]:
    """The modes that diffusers' own parallelism offers."""
    offered = BY_ID[model].family.modes["diffusers"]
    every: dict[str, Parallelism] = {
        **TWO,
        **CFG,
        **TENSOR,
        **CFG_FOUR,
        "ulysses 2 x ring 2": FOUR["ulysses 2 x ring 2"],
    }
    negative = "blurred" if model != "tiny/flux" else None
    for mode, degrees in every.items():
        if offered.issuperset(degrees.modes):
            calls = CHANGING if degrees.world_size == 2 else TWO_BATCHES
            text = 51 if "sd3" in model and degrees.world_size == 4 and degrees.cfg == 1 else None
            yield Case(
                f"{model.removeprefix('tiny/')} {mode}, diffusers",
                model,
                degrees,
                "diffusers",
                calls,
                text_tokens=text,
                negative=negative,
            )
    for mode, degrees in {**DATA, **DATA_FOUR, **DATA_CFG}.items():
        if offered.issuperset(degrees.modes):
            yield Case(
                f"{model.removeprefix('tiny/')} {mode}, diffusers",
                model,
                degrees,
                "diffusers",
                SHARED,
                threshold=EQUAL_BATCH,
            )
    if {"ulysses", "ring"} <= offered and model not in FIXED_TEXT:
        other = 51 if "sd3" in model else 63
        yield from each(model, TWO, f", text {other}, diffusers", engine="diffusers", text_tokens=other)


_FIRST: tuple[Case, ...] = (
    *(case for model in TRANSFORMERS for case in _xdit(model)),
    *_xdit_alone(),
    *(case for model in TRANSFORMERS for case in _stale(model)),
    *(case for model in (*TRANSFORMERS, *UNETS) for case in _native(model)),
)
CASES: tuple[Case, ...] = (*_FIRST, *(case for group in GROUPS for case in group.cases))

# PipeFusion as it is meant to run: an image of its own, whose distance is measured and published.
APPROXIMATE: tuple[Case, ...] = (
    *(case for model in TRANSFORMERS for case in each(model, {"pipefusion 2": PIPEFUSION}, steps=4)),
    *(case for group in GROUPS for case in group.approximate),
)

# Each of these must be far from the one-rank image: they show that the tests can fail.
BROKEN: tuple[Case, ...] = (Case("flux shifted slice", "tiny/flux", TWO["ulysses 2"], shifted_rank=1),)


# Faults that are refused, not patched: run all the same, the image is wrong.
REFUSED: tuple[Case, ...] = (
    Case("flux tensor 2 x ulysses 2", "tiny/flux", Parallelism(tensor=2, ulysses=2), refused=True),
    *(case for group in GROUPS for case in group.refused),
)

# xfuser's faults, each without its patch: it gives a wrong image, or an error.
FAULTS: tuple[Case, ...] = (
    without("sd3-pipefusion-cache", "tiny/sd3", PIPEFUSION, steps=4),
    without("sd3.5-dual-attention", "tiny/sd3.5"),
    without("flux-uneven-text", "tiny/flux", text_tokens=63),
    without("ddpm-noise", "tiny/hunyuandit"),
    without("guidance-off", "tiny/sd3", guidance=1.0),
    without("guidance-off", "tiny/pixart-sigma", guidance=1.0),
    without("guidance-off", "tiny/hunyuandit", guidance=1.0),
    without("sdxl-guidance-rows", "tiny/sdxl", CFG["cfg 2"], calls=(Call(2),)),
    without("sd3-text-length", "tiny/sd3", text_tokens=51),
    *(
        without(
            *("ulysses-pipefusion-cache", model, Parallelism(pipefusion=2, ulysses=2)),
            calls=(Call(2),),
            steps=4,
            against=DATA_PIPEFUSION,
        )
        for model in ("tiny/sd3", "tiny/pixart-alpha", "tiny/hunyuandit")
    ),
    *(case for group in GROUPS for case in group.faults),
)

EVERYTHING = (*CASES, *APPROXIMATE, *BROKEN, *REFUSED, *FAULTS)


def _traits(case: Case) -> dict[str, object]:
    """Factors of a case, by name."""
    degrees = case.degrees
    axes = ("ulysses", "ring", "cfg", "data", "tensor", "pipefusion")
    return {
        "model": case.model,
        "engine": case.engine,
        **{axis: getattr(degrees, axis) > 1 for axis in axes},
        "patches": degrees.pipefusion > 1 and (degrees.num_pipeline_patch, degrees.pipefusion_warmup_steps),
        "parallel vae": degrees.parallel_vae,
        "text": case.text_tokens is not None,
        "guidance": case.guidance,
        "calls": len(case.calls) > 2,
        "compared": case.against is not None,
    }


def _pairs(case: Case) -> set[tuple[object, ...]]:
    pairs: set[tuple[object, ...]] = set(
        combinations(sorted(_traits(case).items(), key=lambda one: one[0]), 2)
    )
    # A degree of 4 meets every other axis, and not every model as well.
    return pairs | {
        ("degree", axis) for axis in ("ulysses", "ring", "pipefusion") if getattr(case.degrees, axis) > 2
    }


def pairwise(cases: Iterable[Case]) -> list[Case]:
    """Few cases in which every two factors meet in every way in which they meet in any of the cases."""
    pairs = {case.name: (case, _pairs(case)) for case in cases}
    left = set().union(*(own for _, own in pairs.values()))
    chosen = []
    while left:
        # A case of four ranks takes twice as long as one of two.
        case, own = max(
            pairs.values(), key=lambda one: len(one[1] & left) / (2 if one[0].world_size > 2 else 1)
        )
        chosen.append(case)
        left -= own
    return chosen


# The same fault in two more models.
_SEEN_BY_ANOTHER = frozenset(
    f"{model} without the patch ulysses-pipefusion-cache" for model in ("pixart-alpha", "hunyuandit")
)
_SLOW = _SEEN_BY_ANOTHER | {name for group in GROUPS for name in group.slow}

# Each with another kind of block: alike in both streams, joint, and paired by skips.
_PIPEFUSION_SEEN_ON = ("tiny/flux", "tiny/sd3", "tiny/hunyuandit", "tiny/flux2")
# What `make test` serves; the others carry the mark full, as does all that takes four processes.
QUICK = frozenset(
    case.name
    for case in (
        *pairwise(_FIRST),
        *(case for case in APPROXIMATE if case.model in _PIPEFUSION_SEEN_ON),
        *BROKEN,
        *(case for case in (*REFUSED, *FAULTS) if case.name not in _SLOW),
        *(case for group in GROUPS for case in group.cases if case.name in group.quick),
    )
    if case.world_size <= 2
)


def cases_of(world_size: int) -> list[Case]:
    """What one start of torchrun serves; cases of equal degrees stand together, so groups are kept."""
    return sorted(
        (case for case in EVERYTHING if case.world_size == world_size),
        key=lambda case: (bool(case.against), repr(case.degrees)),
    )
