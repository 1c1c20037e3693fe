"""Requests cut into batches, told to all ranks, and read from every kind of file."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_samples import cpu_plan

from mlenergy.diffusion.prompts.drawing import shared_prompts
from mlenergy.diffusion.prompts.files import read_path
from mlenergy.diffusion.prompts.pool import Pool
from mlenergy.diffusion.prompts.sampling import Request, batches_of


@given(st.integers(1, 5), st.integers(0, 6))
def test_batches_hold_each_request_once_in_order_with_its_own_seed(size, count):
    requests = [Request(i, f"prompt {i}", 900 + 7 * i, None) for i in range(size * count)]
    batches = batches_of(requests, size)
    assert [len(batch.prompts) for batch in batches] == [size] * count
    pairs = [pair for batch in batches for pair in zip(batch.prompts, batch.seeds, strict=True)]
    assert pairs == [(request.prompt, request.seed) for request in requests]


@pytest.mark.parametrize(("target_ci", "windows"), [(None, 2), (0.01, 7)])
def test_there_are_requests_for_every_window_that_there_may_be(target_ci, windows):
    cluster = SimpleNamespace(
        rank=SimpleNamespace(is_main=True),
        raise_on_all_ranks=nullcontext,
        broadcast_object=lambda value: value,
    )
    plan = cpu_plan(benchmark_iters=2, max_iters=7, target_ci=target_ci, warmup_iters=3, batch_size=4)
    prompts = shared_prompts(plan, cluster)
    assert (len(prompts.requests), len(prompts.warmup_requests)) == (windows * 4, 3 * 4)
    cluster.rank.is_main = False
    assert shared_prompts(plan, cluster) is None, "only rank 0 draws"


def test_the_named_column_of_a_csv_is_read(tmp_path):
    (tmp_path / "p.csv").write_text("caption,prompt\na fox,wrong\nan owl,wrong\n")
    assert read_path(tmp_path / "p.csv", "caption").prompts == ("a fox", "an owl")


def test_the_digest_of_a_pool_is_of_its_prompts_in_their_order():
    digests = {
        Pool(prompts, (None,) * len(prompts), {}).sha256 for prompts in (("a", "b"), ("b", "a"), ("ab",))
    }
    assert len(digests) == 3
