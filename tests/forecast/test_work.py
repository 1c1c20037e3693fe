"""Work of a step, by what shares it out and how guidance is computed."""

from dataclasses import replace

import pytest

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.forecast.cards import card_named
from mlenergy.diffusion.forecast.work import work_of
from mlenergy.diffusion.models.architectures.reader import find_architecture

QWEN, SD35 = "Qwen/Qwen-Image", "stabilityai/stable-diffusion-3.5-medium"


def work(plan):
    model = find_architecture(plan.spec.model_id, None)
    return work_of(plan, model, costs_of(model))


@pytest.mark.parametrize(("gpu", "per_s"), [("H100", 3.9e12), ("H200", 3.9e12), ("B200", 4.4e12)])
def test_a_gpu_computes_as_many_exponentials_as_is_published(gpu, per_s):
    """FlashAttention 3 and 4 (arXiv 2407.08608, 2603.05451): 16 a clock and multiprocessor of both."""
    assert card_named(gpu).exponentials_per_s == pytest.approx(per_s, rel=0.02)


@pytest.mark.parametrize(("model", "calls"), [(QWEN, 2), (SD35, 1)])
def test_guidance_is_a_second_call_or_a_second_half_of_the_batch(plan_of, model, calls):
    """Launches, and the time to read a product's weight, are of each call; all else is of its rows."""
    guided = plan_of(model, guidance_scale=4.0)
    alone = work(replace(guided, guidance_scale=1.0))
    both = work(guided)
    assert both.step.kernels == pytest.approx(calls * alone.step.kernels)
    assert both.step.matmul_flops_a_row == pytest.approx(calls * alone.step.matmul_flops_a_row)
    assert both.step.matmul_flops == pytest.approx(2 * alone.step.matmul_flops)
    assert both.step.attention_scores == pytest.approx(2 * alone.step.attention_scores)
    shared = work(replace(guided, parallel=Parallelism(cfg=2)))
    assert shared.step.kernels == pytest.approx(alone.step.kernels)
    assert shared.step.matmul_flops == pytest.approx(alone.step.matmul_flops)


def test_decoding_a_longer_video_is_more_work(plan_of):
    short = work(plan_of("zai-org/CogVideoX-2b"))
    long = work(plan_of("zai-org/CogVideoX-2b", num_frames=97))
    # 13 and 25 latent frames, decoded in parts of two, the first one of three.
    assert long.decode.matmul_flops_a_row == pytest.approx(2 * short.decode.matmul_flops_a_row)
    assert short.decode.kernels < long.decode.kernels < 2.1 * short.decode.kernels
    assert 0 < short.decode.matmul_flops < long.decode.matmul_flops
    assert 0 < short.decode.elementwise_bytes < long.decode.elementwise_bytes


@pytest.mark.parametrize(("model", "calls"), [(QWEN, 2), (SD35, 1)])
def test_ranks_exchange_in_every_call(plan_of, model, calls):
    two = replace(plan_of(model, guidance_scale=4.0), parallel=Parallelism(ulysses=2))
    unguided = replace(two, guidance_scale=1.0)
    assert work(two).attentions == calls * work(unguided).attentions > 0
