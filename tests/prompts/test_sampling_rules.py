"""The sample of any set, for any number of images."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts import sampling
from mlenergy.diffusion.prompts.pool import Pool
from mlenergy.diffusion.prompts.sampling import PromptOptions, PromptSet, batches_of, sample_requests

SIZES, COUNTS, SEEDS = st.integers(1, 30), st.integers(1, 70), st.integers(0, 2**62)


def sampled(size: int, count: int, seed: int, warmup: int = 0, order: str = "shuffled") -> PromptSet:
    pool = Pool(tuple(f"p{i}" for i in range(size)), (None,) * size, {"dataset": "x"})
    with patch.object(sampling, "load_pool", lambda dataset, column: pool):
        return sample_requests(PromptOptions("x", order=order), count, seed, warmup)  # type: ignore[arg-type]


@given(size=SIZES, count=COUNTS, seed=SEEDS)
def test_no_prompt_is_ahead_of_another_by_more_than_one(size: int, count: int, seed: int) -> None:
    prompts = [request.prompt for request in sampled(size, count, seed).requests]
    for begin in range(0, count, size):
        part = prompts[begin : begin + size]
        assert len(set(part)) == len(part)
    times = Counter({f"p{i}": 0 for i in range(size)}) | Counter(prompts)
    assert len(prompts) == count
    assert max(times.values()) - (min(times.values()) if len(times) == size else 0) <= 1
    assert [request.seed for request in sampled(size, count, seed).requests] == [*range(seed, seed + count)]


@given(size=SIZES, count=COUNTS, more=st.integers(0, 40), seed=SEEDS, warmup=st.integers(0, 20))
def test_a_sample_is_the_beginning_of_a_larger_one_whatever_is_warmed_up(
    size: int, count: int, more: int, seed: int, warmup: int
) -> None:
    large, small = sampled(size, count + more, seed, warmup), sampled(size, count, seed)
    assert large.requests[:count] == small.requests
    assert len(large.warmup_requests) == warmup


@example(size=3, count=3, seed=0, warmup=0)
@example(size=3, count=4, seed=0, warmup=0)
@given(size=SIZES, count=COUNTS, seed=SEEDS, warmup=st.integers(0, 70))
def test_the_sets_own_order_is_each_prompt_once(size: int, count: int, seed: int, warmup: int) -> None:
    if count > size:
        with pytest.raises(UserError):
            sampled(size, count, seed, order="file")
        return
    found = sampled(size, count, seed, warmup, order="file")
    assert [request.prompt for request in found.requests] == [f"p{i}" for i in range(count)]
    assert [request.prompt for request in found.warmup_requests] == [f"p{i % size}" for i in range(warmup)]


@given(size=SIZES, batch=st.integers(1, 7), batches=st.integers(1, 7), seed=SEEDS)
def test_batches_hold_the_requests_in_their_order(size: int, batch: int, batches: int, seed: int) -> None:
    requests = sampled(size, batch * batches, seed).requests
    found = batches_of(requests, batch)
    assert [len(one.prompts) for one in found] == [batch] * batches
    assert [prompt for one in found for prompt in one.prompts] == [request.prompt for request in requests]
    assert [s for one in found for s in one.seeds] == [request.seed for request in requests]
