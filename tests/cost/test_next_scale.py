"""Costs of VAR by formula are those that torch counts of the modules, and those that were published."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.count import FusedAttention, LiveBytes
from mlenergy.diffusion.cost.flops import flops_of
from mlenergy.diffusion.cost.memory import estimate_memory
from mlenergy.diffusion.cost.next_scale import image_costs
from mlenergy.diffusion.cost.size import size_plan
from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.engines.autoregressive.sampling import draw_tokens, guide
from mlenergy.diffusion.engines.autoregressive.var_model import VarModel, empty_parts
from mlenergy.diffusion.engines.autoregressive.var_vae import training_parts
from mlenergy.diffusion.models.next_scale import attended_pairs, tokens_of
from mlenergy.diffusion.models.resolve import resolve_model

# Parameters of the transformer in millions; TFLOP of it for an image under guidance (design notes, computed).
PUBLISHED = {
    "var-d16": (310.3, 0.60),
    "var-d20": (600.9, 1.15),
    "var-d24": (1033.4, 1.96),
    "var-d30": (2010.0, 3.79),
    "var-d36": (2353.9, 22.8),
}
MODELS = [*PUBLISHED, "tiny/var"]
# The other models are these with other numbers of the same layers.
QUICK = {("var-d36", 4.0), ("tiny/var", 0.0)}


def plan_of(model_id, *options, world_size=1):
    words = ["--device", "cpu", *options, "--workload.model_id", model_id]
    return make_plan(parse_args(words, "test"), resolve_model(model_id), world_size, "cuda", "NVIDIA H200")


def on_meta(plan, dtype):
    config = plan.spec.next_scale.config
    return VarModel(config, {name: part.to(dtype) for name, part in empty_parts(config).items()})


def counted(call):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("model_id", MODELS)
def test_parameters_are_the_modules_and_the_published_ones(model_id):
    plan = plan_of(model_id)
    config = plan.spec.next_scale.config
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in empty_parts(config).items()}
    assert dict(image_costs(plan).parameters) == parts
    if model_id in PUBLISHED:
        millions, _ = PUBLISHED[model_id]
        assert parts["transformer"] + parts["class_embedding"] == pytest.approx(millions * 1e6, rel=0.005)
        assert sum(parts.values()) == plan.spec.parameters
        encoder = sum(shape.numel() for shape in training_parts(config.vae).values())
        assert parts["vae"] + encoder == pytest.approx(108.9e6, rel=0.005)


@pytest.mark.parametrize(
    ("model_id", "scale"),
    [
        pytest.param(name, scale, marks=() if (name, scale) in QUICK else pytest.mark.full)
        for name in MODELS
        for scale in (4.0, 0.0)
    ],
)
def test_flops_are_those_that_torch_counts_scale_by_scale(model_id, scale):
    plan = plan_of(model_id, "--workload.guidance_scale", str(scale))
    model, schedule = on_meta(plan, torch.float16), plan.schedule
    state = model.begin(Batch(("",), (1,), (3,)), schedule, guided=scale > 0)

    def one_scale(index):
        model.logits(state, index)
        rows, columns = schedule[index]
        model.accept(state, index, torch.zeros((1, rows * columns), dtype=torch.long, device="meta"))

    with torch.no_grad():
        scales = [counted(lambda k=k: one_scale(k)) for k in range(len(schedule))]
    costs = image_costs(plan)
    assert scales == [round(flops) for flops in costs.scale_flops]
    assert counted(lambda: model.decode(state)) == round(costs.decode_flops)
    if model_id in PUBLISHED and scale:
        assert sum(scales) / 1e12 == pytest.approx(PUBLISHED[model_id][1], rel=0.02)


def test_a_plans_flops_are_those_of_its_images():
    one, four = flops_of(plan_of("var-d16")), flops_of(plan_of("var-d16", "--workload.batch_size", "4"))
    assert four.total == pytest.approx(4 * one.total, rel=1e-9)
    assert len(one.scales) == one.steps == 10
    assert one.total == pytest.approx(sum(one.scales) + one.vae_decode, rel=1e-9)
    shared = size_plan(
        plan_of("var-d16", "--data_parallel_degree", "4", "--workload.batch_size", "4", world_size=4)
    )
    assert shared.own.tflops_per_rank == pytest.approx(one.total / 1e12, rel=1e-6)
    assert shared.own.communication.total_bytes == 0
    assert [way.parallel.data for way in shared.combinations] == [4]


@pytest.mark.parametrize("model_id", ["var-d16", pytest.param("var-d36", marks=pytest.mark.full)])
def test_activations_are_near_what_lives_at_once(model_id):
    plan = plan_of(model_id)
    model, schedule, watch = on_meta(plan, torch.float16), plan.schedule, LiveBytes()
    for part in model.components.values():
        watch.ignore(part)
    with torch.no_grad(), FusedAttention(), watch:
        state = model.begin(Batch(("",), (1,), (3,)), schedule, guided=True)
        for index, (rows, columns) in enumerate(schedule):
            numbers = torch.zeros((1, rows * columns), device="meta")
            tokens = draw_tokens(guide(model.logits(state, index), 2.0), numbers, 900, 0.95)
            model.accept(state, index, tokens)
        denoise, total = watch.peak, state.total
        model._held = None
        del state
        watch.peak = watch.live
        model.vae.decode(total)
    estimate = estimate_memory(plan)
    assert denoise == pytest.approx(estimate.activation_bytes["denoise"], rel=0.05)
    assert watch.peak == pytest.approx(estimate.activation_bytes["vae_decode"], rel=0.05)
    assert estimate.total_parameter_bytes == 2 * plan.spec.parameters


def test_schedules_have_the_published_tokens_and_pairs():
    small, large = plan_of("var-d16").schedule, plan_of("var-d36").schedule
    assert (tokens_of(small), attended_pairs(small), tokens_of(large)) == (680, 286_434, 2240)
