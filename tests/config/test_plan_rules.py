"""Facts that follow from a plan, for any degrees and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_samples import make_plan

from mlenergy.diffusion.config.parallelism import AXES, Parallelism, share_out
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.listed import BY_ID

SD3, SIGMA = BY_ID["stabilityai/stable-diffusion-3.5-medium"], BY_ID["PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"]
DEGREE = st.sampled_from([1, 2, 3, 4])


@given(st.fixed_dictionaries(dict.fromkeys(AXES, DEGREE)), st.booleans())
def test_ranks_are_the_product_of_all_degrees_and_modes_are_those_above_one(degrees, parallel_vae):
    parallel = Parallelism(**degrees, parallel_vae=parallel_vae)
    product = 1
    for degree in degrees.values():
        product *= degree
    assert parallel.world_size == product
    assert parallel.sequence == degrees["ring"] * degrees["ulysses"]
    used = {axis for axis, degree in degrees.items() if degree > 1}
    assert set(parallel.modes) == used | ({"parallel-vae"} if parallel_vae else set())
    assert parallel.pipeline_patches == degrees["pipefusion"]
    assert Parallelism(pipefusion=2, num_pipeline_patch=5).pipeline_patches == 5


@given(
    st.none() | DEGREE,
    st.none() | DEGREE,
    st.sampled_from([1, 2, 3]),
    st.integers(1, 48),
    st.sampled_from([24, 16, None]),
)
def test_what_is_left_open_takes_what_is_left_over_or_the_arithmetic_is_told(
    ulysses, ring, data, ranks, heads
):
    fits = ranks % ((ulysses or 1) * (ring or 1) * data) == 0
    if ulysses is not None and ring is not None:
        fits = ulysses * ring * data == ranks
    if not fits:
        with pytest.raises(UserError, match=f"but {ranks} processes were started"):
            share_out(ulysses, ring, {"data_parallel_degree": data}, ranks, heads)
        return
    found_ulysses, found_ring = share_out(ulysses, ring, {"data_parallel_degree": data}, ranks, heads)
    assert found_ulysses * found_ring * data == ranks
    assert found_ulysses == (ulysses or found_ulysses) and found_ring == (ring or found_ring)
    if ulysses is None and ring is None:
        over = ranks // data
        best = max(d for d in range(1, over + 1) if over % d == 0 and (heads is None or heads % d == 0))
        assert found_ulysses == best, "as many as the heads allow"


def test_without_started_processes_the_degrees_decide():
    assert share_out(4, None, {"cfg": 2}, None, 24) == (4, 1)
    assert share_out(None, None, {}, None, 24) == (1, 1)


@pytest.mark.parametrize(
    ("scale", "batch"), [(None, False), (0.0, False), (1.0, False), (1.01, True), (7.0, True)]
)
def test_a_guidance_batch_is_computed_above_a_scale_of_one(scale, batch):
    assert make_plan(spec=SD3, guidance_scale=scale).runs_guidance_batch is batch
    assert not make_plan(guidance_scale=scale).runs_guidance_batch  # FLUX embeds its scale


def test_windows_are_benchmark_iters_or_under_target_ci_as_many_as_there_may_be():
    assert make_plan(benchmark_iters=4, max_iters=30).most_iters == 4
    assert make_plan(benchmark_iters=4, max_iters=30, target_ci=0.01).most_iters == 30


def test_tokens_are_the_latents_in_patches_and_text_where_it_is_in_the_sequence():
    plan = make_plan(height_px=512, width_px=1024)
    assert (plan.tokens, plan.token_rows) == (32 * 64, 32)
    assert plan.text_tokens_in_sequence == 512
    assert make_plan(spec=SD3, max_sequence_length=256).text_tokens_in_sequence == 77 + 256
    assert make_plan(spec=SIGMA, max_sequence_length=300).text_tokens_in_sequence == 0


@pytest.mark.parametrize(
    ("degrees", "steps", "stale"),
    [
        ({"pipefusion": 2}, 28, 27),
        ({"pipefusion": 2, "pipefusion_warmup_steps": 5}, 28, 23),
        ({"pipefusion": 2, "pipefusion_warmup_steps": 27}, 28, 1),
        ({"pipefusion": 2, "pipefusion_warmup_steps": 28}, 28, None),
        ({"pipefusion": 2, "num_pipeline_patch": 1}, 28, None),
        ({"ulysses": 2}, 28, None),
    ],
)
def test_pipefusion_is_approximate_where_a_step_takes_what_the_step_before_left(degrees, steps, stale):
    found = make_plan(parallel=Parallelism(**degrees), steps=steps).approximation
    assert (found is None) == (stale is None)
    assert stale is None or f"{stale} of {steps} steps" in found
    assert make_plan(parallel=Parallelism(**degrees), steps=steps, engine="diffusers").approximation is None
