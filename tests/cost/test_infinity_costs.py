"""Costs of Infinity by formula against what torch counts of its modules, and against computed figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.config.workloads import TextToImage
from mlenergy.diffusion.cost.count import peak_bytes
from mlenergy.diffusion.cost.next_scale import image_costs
from mlenergy.diffusion.engines.autoregressive.infinity_model import empty_parts
from mlenergy.diffusion.engines.autoregressive.infinity_text import empty_text_encoder
from mlenergy.diffusion.engines.autoregressive.infinity_transformer import InfinityTransformer
from mlenergy.diffusion.models.infinity import InfinityConfig
from mlenergy.diffusion.models.infinity_sizes import image_size
from mlenergy.diffusion.models.resolve import resolve_model


def planned(model: str, **work: Any) -> Plan:
    work = {"dtype": "float32", **work}
    args = BenchmarkArgs(workload=TextToImage(model_id=model, weights="random", **work))
    if model.startswith("tiny/"):
        args = BenchmarkArgs(workload=TextToImage(model_id=model, **work))
    return make_plan(args, resolve_model(model), 1, "cuda", "NVIDIA H200")


def config_of(plan: Plan) -> InfinityConfig:
    assert plan.spec.next_scale is not None
    config = plan.spec.next_scale.config
    assert isinstance(config, InfinityConfig)
    return config


def flops(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return int(counter.get_total_flops())


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape, device="meta", dtype=dtype)


class Scales:
    """The scales of one generation on the meta device."""

    def __init__(self, plan: Plan, transformer: InfinityTransformer) -> None:
        size = image_size(plan.height_px, plan.width_px)
        assert size is not None and plan.max_sequence_length is not None
        rows, length = 2 if plan.runs_guidance_batch else 1, plan.max_sequence_length
        self.features = meta(rows, length, config_of(plan).text.width)
        self.visible = meta(rows, length, dtype=torch.bool)
        self.transformer, self.rows, self.size = transformer, rows, size
        self.cache = transformer.new_cache(rows, length, size)

    def run(self, scale: int) -> None:
        rows, columns = self.size.scales[scale]
        x = self.transformer.start(self.rows)
        if scale:
            codes = meta(1, rows * columns, self.transformer.config.bits)
            x = self.transformer.embed(codes, scale).repeat(self.rows, 1, 1)
        self.transformer(x, self.features, self.visible, self.cache, scale)


def text_inputs(plan: Plan, rows: int = 1) -> dict[str, torch.Tensor]:
    assert plan.max_sequence_length is not None
    length = plan.max_sequence_length
    # A mask of two dimensions makes transformers look at its values, which a meta tensor has not.
    return {
        "input_ids": meta(rows, length, dtype=torch.long),
        "attention_mask": meta(rows, 1, length, length),
    }


@pytest.mark.parametrize(
    ("model", "work"),
    [
        pytest.param("infinity-2b", {}, marks=pytest.mark.full),
        pytest.param(
            *("infinity-8b", {"height": 320, "width": 800, "max_sequence_length": 64}), marks=pytest.mark.full
        ),
        ("tiny/infinity", {"height": 320, "width": 800, "max_sequence_length": 32}),
        ("tiny/infinity", {"guidance_scale": 1.0}),
    ],
)
def test_every_operator_is_in_the_formulas(model: str, work: dict[str, Any]) -> None:
    plan = planned(model, **work)
    costs, config = image_costs(plan), config_of(plan)
    transformer, vae = empty_parts(config)
    encoder = empty_text_encoder(config.text)
    parts = {"text_encoder": encoder, "transformer": transformer, "vae": vae}
    counted = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert counted == costs.parameters
    assert plan.spec.parameters in (sum(counted.values()), None)
    scales = Scales(plan, transformer)
    for scale, wanted in enumerate(costs.scale_flops):
        assert flops(lambda scale=scale: scales.run(scale)) == wanted
    assert flops(lambda: encoder(**text_inputs(plan))) == costs.condition_flops
    rows, columns = scales.size.scales[-1]
    codes = meta(1, config.vae.code_bits, rows * config.patch, columns * config.patch)
    assert flops(lambda: vae.decode(codes)) == costs.decode_flops


def test_a_negative_prompt_is_encoded_as_well() -> None:
    once = image_costs(planned("infinity-2b")).condition_flops
    assert image_costs(planned("infinity-2b", negative_prompt="grey")).condition_flops == 2 * once


@pytest.mark.parametrize(("model", "tflops"), [("infinity-2b", 115), ("infinity-8b", 380)])
def test_a_guided_image_of_1024_pixels_costs_what_was_computed(model: str, tflops: float) -> None:
    """Both have 10,521 tokens: the 2 x 2 codes of an 8B's token are of half the stride."""
    plan = planned(model)
    assert plan.tokens == 10_521
    assert sum(image_costs(plan).scale_flops) / 1e12 == pytest.approx(tflops, rel=0.02)


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["infinity-2b", "infinity-8b"])
def test_activations_are_those_that_torch_makes(model: str, dtype: str) -> None:
    plan = planned(model, dtype=dtype)
    costs, config, kind = image_costs(plan), config_of(plan), getattr(torch, dtype)
    transformer, vae = (part.to(kind) for part in empty_parts(config))
    encoder = empty_text_encoder(config.text).to(kind)
    inputs = text_inputs(plan)
    inputs["attention_mask"] = inputs["attention_mask"].to(kind)
    assert isinstance(transformer, InfinityTransformer)

    def all_scales() -> None:
        scales = Scales(plan, transformer)
        for scale in range(len(scales.size.scales)):
            scales.run(scale)

    codes = meta(1, config.vae.code_bits, 64 * config.patch, 64 * config.patch, dtype=kind)
    counted = {
        "text_encode": peak_bytes(encoder, lambda: encoder(**inputs), inputs),
        "denoise": peak_bytes(transformer, all_scales, []),
        "vae_decode": peak_bytes(vae, lambda: vae(codes), codes),
    }
    assert counted == pytest.approx(dict(costs.activation_bytes), rel=0.02)
