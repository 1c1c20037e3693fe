"""One rank's share of memory, arithmetic and bytes, on counts that are easily worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from math import comb, prod

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.cost.communication import communication_of
from mlenergy.diffusion.cost.costs import ComponentCosts
from mlenergy.diffusion.cost.efficiency import efficiency
from mlenergy.diffusion.cost.flops import whole_flops
from mlenergy.diffusion.cost.memory import CONTEXT_BYTES, memory_of
from mlenergy.diffusion.cost.shape import shape_of, workload_of
from mlenergy.diffusion.cost.size import _rank_flops, factorings, valid_plans
from mlenergy.diffusion.models.architectures.reader import architecture

FLUX = "black-forest-labs/FLUX.1-dev"
SD3 = "stabilityai/stable-diffusion-3.5-medium"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SIGMA = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
CELLS = 128 * 128  # of 1024 × 1024 pixels
GIB = 1 << 30


def costs_by_hand(model):
    """FLOPs and bytes that are one per row, cell or text token, each component with a factor of its own."""
    costs = {}
    for place, name in enumerate(model.modules):
        factor = 10 ** (place % 3)
        kind = "cells" if name in (model.denoiser.name, "vae") else "text"
        line = {"1": 7.0 * factor, kind: 1.0 * factor}
        costs[name] = ComponentCosts(
            *(name, 1000 + place, 10 * place, 400, 0),
            *({"1": 5.0 * factor, kind: 3.0 * factor}, {"2": line, "4": {k: 2 * v for k, v in line.items()}}),
        )
    return costs


def sized(plan, **degrees):
    """Memory and arithmetic of one rank, with the counts above."""
    plan = replace(plan, parallel=Parallelism(**degrees)) if degrees else plan
    model = architecture(plan.spec.model_id)
    costs = costs_by_hand(model)
    shape = shape_of(plan, model)
    return memory_of(plan, model, costs, shape, None), _rank_flops(plan, model, costs, shape)


def by_hand(name, rows, cells_or_text, model):
    """Activation bytes and FLOPs of a component's call."""
    factor = 10 ** (list(model.modules).index(name) % 3)
    return rows * factor * (7 + cells_or_text), rows * factor * (5 + 3 * cells_or_text)


def test_a_rank_decodes_its_groups_images_whole_and_its_part_only_under_parallel_vae(plan_of):
    model, plan = architecture(FLUX), plan_of(FLUX, batch_size=4)
    whole = by_hand("vae", 4, CELLS, model)[0]
    for degrees in ({}, {"ulysses": 4}, {"ring": 2}, {"pipefusion": 2}, {"ulysses": 2, "ring": 2}):
        assert sized(plan, **degrees)[0].activation_bytes["vae_decode"] == whole, degrees
    assert sized(plan, data=2)[0].activation_bytes["vae_decode"] == whole / 2
    split = sized(plan, ulysses=4, parallel_vae=True)[0].activation_bytes["vae_decode"]
    assert split == by_hand("vae", 4, CELLS / 4, model)[0]
    # Only the ranks of one data-parallel group share an image.
    grouped = sized(plan, data=2, ulysses=2, parallel_vae=True)[0].activation_bytes["vae_decode"]
    assert grouped == by_hand("vae", 2, CELLS / 2, model)[0]


@pytest.mark.parametrize("model_id", [FLUX, SD3, SDXL])
def test_text_takes_the_memory_of_the_largest_encoder_whatever_its_place(plan_of, model_id):
    model, plan = architecture(model_id), plan_of(model_id, batch_size=2)
    tokens = workload_of(plan, model).t5_tokens or 0
    each = [by_hand(part.name, 2, tokens, model)[0] for part in model.text_encoders]
    assert len(each) > 1
    assert sized(plan)[0].activation_bytes["text_encode"] == max(each)


@pytest.mark.parametrize("model_id", [FLUX, SD3, SDXL, SIGMA])
@pytest.mark.parametrize("negative", [None, "blurry"])
def test_arithmetic_of_a_call_is_every_encoder_every_step_and_the_decode(plan_of, model_id, negative):
    model, plan = architecture(model_id), plan_of(model_id, batch_size=3)
    guided = plan.runs_guidance_batch
    plan = replace(plan, negative_prompt=negative if guided else None)
    costs, tokens = costs_by_hand(model), workload_of(plan, model).t5_tokens or 0
    passes = 2 if guided and (model_id != SDXL or negative is not None) else 1  # SDXL: zeros for no prompt
    text = passes * sum(by_hand(part.name, 3, tokens, model)[1] for part in model.text_encoders)
    step = by_hand(model.denoiser.name, 6 if guided else 3, CELLS, model)[1]
    decode = by_hand("vae", 3, CELLS, model)[1]
    found = whole_flops(plan, model, costs)
    assert (found.text_encode, found.denoise_step, found.vae_decode) == (text, step, decode)
    assert (found.steps, found.total) == (plan.steps, text + plan.steps * step + decode)
    # The whole call is the same however it is shared out.
    shared = replace(plan, parallel=Parallelism(data=3, ulysses=2, parallel_vae=True))
    assert whole_flops(shared, model, costs) == found


@pytest.mark.parametrize("mode", ["ulysses", "ring", "pipefusion", "tensor", "cfg"])
def test_each_mode_shares_out_the_steps_and_nothing_else(plan_of, mode):
    model, plan = architecture(SD3), plan_of(SD3, batch_size=2)
    _, whole = sized(plan)
    steps = plan.steps * by_hand("transformer", 4, CELLS, model)[1]
    _, own = sized(plan, **{mode: 2})
    assert own == pytest.approx(whole - steps / 2)
    decode = by_hand("vae", 2, CELLS, model)[1]
    _, split = sized(plan, **{mode: 2}, parallel_vae=True)
    assert split == pytest.approx(whole - steps / 2 - decode / 2)


@pytest.mark.parametrize(
    ("degrees", "share"),
    [
        *(({mode: 4}, 1.0) for mode in ("ulysses", "ring", "data")),
        *(({mode: 4}, 0.25) for mode in ("pipefusion", "tensor")),
        ({"pipefusion": 2, "tensor": 2, "ulysses": 2}, 0.25),
    ],
)
def test_only_pipefusion_and_tensor_parallelism_split_weights_and_only_the_denoisers_blocks(
    plan_of, degrees, share
):
    plan, model = plan_of(FLUX, batch_size=4), architecture(FLUX)
    whole, own = sized(plan)[0].parameter_bytes, sized(plan, **degrees)[0].parameter_bytes
    saved = {name: whole[name] - own[name] for name in whole}
    assert saved.pop(model.denoiser.name) == 2 * 400 * (1 - share)
    assert set(saved.values()) == {0}


def test_guidance_halves_exchange_their_own_shards_predictions(plan_of):
    plan, model = plan_of(SD3), architecture(SD3)

    def sent(**degrees):
        parallel = Parallelism(**degrees)
        return communication_of(shape_of(replace(plan, parallel=parallel), model), parallel, "bfloat16")

    assert sent(cfg=2).cfg_bytes == 128 * 128 * 16 * 2
    assert sent(cfg=2, ulysses=4).cfg_bytes == sent(cfg=2).cfg_bytes / 4


@pytest.mark.parametrize(
    ("model_id", "tokens", "in_sequence"),
    [(FLUX, 512, 512), (SD3, 256, 77 + 256), (SIGMA, 300, 300)],
)
def test_text_tokens_of_the_denoiser(plan_of, model_id, tokens, in_sequence):
    shape = shape_of(plan_of(model_id), architecture(model_id))
    assert (shape.workload.t5_tokens, shape.text_tokens) == (tokens, in_sequence)
    assert (shape.image_tokens, shape.joint_tokens) == (CELLS // 4, CELLS // 4 + in_sequence)


def test_data_parallel_ranks_do_a_share_of_everything(plan_of):
    memory, flops = sized(plan_of(SD3, batch_size=4))
    half_memory, half = sized(plan_of(SD3, batch_size=4), data=2)
    assert half == pytest.approx(flops / 2)
    assert half_memory.activation_bytes == {k: v / 2 for k, v in memory.activation_bytes.items()}
    assert half_memory.parameter_bytes == memory.parameter_bytes


def test_the_peak_is_all_weights_and_the_largest_stage(plan_of):
    plan = plan_of(FLUX)
    model = architecture(FLUX)
    costs, shape = costs_by_hand(model), shape_of(plan, model)
    found = memory_of(plan, model, costs, shape, None)
    stages = found.activation_bytes
    assert found.peak_bytes == sum(found.parameter_bytes.values()) + max(stages.values())
    assert stages[found.peak_stage] == max(stages.values())
    needs = (found.peak_bytes + CONTEXT_BYTES) / GIB
    assert memory_of(plan, model, costs, shape, needs).fits is True
    assert memory_of(plan, model, costs, shape, needs - 1e-9).fits is False
    assert found.fits is None and found.total_parameter_bytes == sum(found.parameter_bytes.values())


@pytest.mark.parametrize(("dtype", "size"), [("bfloat16", 2), ("float16", 2), ("float32", 4)])
def test_bytes_of_weights_and_activations_follow_the_type(plan_of, dtype, size):
    plan = plan_of(FLUX, dtype=dtype)
    found, _ = sized(plan)
    model = architecture(FLUX)
    for place, name in enumerate(model.modules):
        assert found.parameter_bytes[name] == (1000 + place + 10 * place) * size
    assert found.activation_bytes["vae_decode"] == by_hand("vae", 1, CELLS, model)[0] * size / 2


def test_denoising_holds_the_texts_embeddings_and_what_ranks_exchange(plan_of):
    """FLUX: rows 1, 4096 image and 512 text tokens; T5's embeddings of 4096, attention of width 3072."""
    plan, model = plan_of(FLUX), architecture(FLUX)
    factor = 10 ** (list(model.modules).index("transformer") % 3)
    embeddings = 512 * 4096 * 2
    alone = sized(plan)[0].activation_bytes["denoise"]
    assert alone == factor * (7 + CELLS) + embeddings
    tensor = 4608 * 3072 * 2
    four = sized(plan, ulysses=4)[0].activation_bytes["denoise"]
    assert four == pytest.approx(factor * (7 + CELLS / 4) + embeddings + 4 * tensor / 4)
    staged = sized(plan, pipefusion=2)[0].activation_bytes["denoise"]
    assert staged == pytest.approx(alone + 2 * tensor * 57 / 2)


@given(
    *(st.sampled_from([1, 2, 4]) for _ in range(4)),
    st.sampled_from([FLUX, SD3, SIGMA]),
    st.sampled_from(["bfloat16", "float32"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_mode_sends_without_being_used_and_bytes_follow_the_batch(
    plan_of, ulysses, ring, stages, cfg, model_id, dtype
):
    parallel = Parallelism(ulysses=ulysses, ring=ring, pipefusion=stages, cfg=min(cfg, 2))
    plan = replace(plan_of(model_id), parallel=parallel)
    model = architecture(model_id)
    one = communication_of(shape_of(plan, model), parallel, dtype)
    used = {
        *(("ulysses_bytes", ulysses), ("ring_bytes", ring), ("pipefusion_bytes", stages)),
        *(("cfg_bytes", min(cfg, 2)), ("gather_bytes", ulysses * ring)),
    }
    for name, degree in used:
        assert (getattr(one, name) > 0) == (degree > 1), name
    assert one.tensor_bytes == one.data_bytes == 0
    assert one.total_bytes == sum(v for k, v in one.as_dict().items() if k != "total_bytes")
    two = communication_of(shape_of(replace(plan, batch_size=2), model), parallel, dtype)
    assert two.total_bytes == pytest.approx(2 * one.total_bytes, abs=10)
    wide = communication_of(shape_of(plan, model), parallel, "float32" if dtype == "bfloat16" else "bfloat16")
    ratio = 2 if dtype == "bfloat16" else 0.5
    assert wide.total_bytes == pytest.approx(ratio * one.total_bytes, abs=10)


@given(st.integers(1, 64), st.integers(1, 4))
def test_every_ordered_product_comes_once(number, parts):
    found = list(factorings(number, parts))
    assert len(set(found)) == len(found)
    assert all(prod(factors) == number and len(factors) == parts for factors in found)
    # Of each prime's exponent e, (e + parts - 1 choose parts - 1).
    count, rest, prime = 1, number, 2
    while rest > 1:
        exponent = 0
        while rest % prime == 0:
            rest, exponent = rest // prime, exponent + 1
        count *= comb(exponent + parts - 1, parts - 1)
        prime += 1
    assert len(found) == count


def test_combinations_split_the_batch_evenly_and_keep_the_plans_warmup(plan_of):
    plan = replace(plan_of(SD3, batch_size=6), parallel=Parallelism(pipefusion_warmup_steps=3))
    ways = list(valid_plans(plan, 4))
    assert {way.parallel.data for way in ways} == {1, 2}  # not 4
    assert {way.parallel.cfg for way in ways} == {1, 2}
    assert all(way.parallel.pipefusion_warmup_steps == 3 and way.parallel.world_size == 4 for way in ways)
    unguided = replace(plan, guidance_scale=1.0)
    assert not unguided.runs_guidance_batch
    assert {way.parallel.cfg for way in valid_plans(unguided, 4)} == {1}


@pytest.mark.parametrize("degrees", [{"data": 2}, {"cfg": 2}, {"ulysses": 2}, {"data": 2, "ulysses": 2}])
def test_the_rates_of_all_gpus_sum_to_the_calls(plan_of, degrees):
    """Groups work beside each other: each GPU's rate is the call's over all of them, data-parallel or not."""
    plan = replace(plan_of(SD3, batch_size=4), parallel=Parallelism(**degrees))
    model = architecture(SD3)
    flops = whole_flops(plan, model, costs_by_hand(model))
    devices = plan.parallel.world_size
    found = efficiency(flops, 2.0, 30.0, devices, "NVIDIA H200", "bfloat16")
    assert found.tflops_per_gpu * devices == pytest.approx(flops.total / 1e12 / 2.0)
    assert found.mfu == pytest.approx(found.tflops_per_gpu / 989.5)
    assert found.j_per_tflop == pytest.approx(30.0 / (flops.total / 1e12))
