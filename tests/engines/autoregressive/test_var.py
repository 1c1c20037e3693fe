"""VAR's transformer and VQ-VAE compute what the paper says; an image is of its seed and class alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from mlenergy.diffusion.engine import Batch, LoadReport
from mlenergy.diffusion.engines.autoregressive.engine import AutoregressiveEngine
from mlenergy.diffusion.engines.autoregressive.sampling import SamplingOptions, generate
from mlenergy.diffusion.engines.autoregressive.var_model import build_var
from mlenergy.diffusion.engines.autoregressive.var_vae import Quantizer
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.models.var import VqVaeConfig

CPU = torch.device("cpu")
SCHEDULE = resolve_model("tiny/var").next_scale.schedules[64, 64]
GUIDED = SamplingOptions(guidance_scale=4.0, top_k=900, top_p=0.95)
EQUAL = 1e-5


@torch.no_grad()
def images(model, seeds=(1, 2, 3), classes=(7, 8, 9), options=GUIDED):
    batch = Batch(("",) * len(seeds), seeds, classes)
    return generate(model, batch, SCHEDULE, options, CPU)


class Kept:
    """A model that keeps the inputs and the tokens of every scale."""

    def __init__(self, model):
        self._model, self.inputs, self.tokens, self.logits_of = model, [], [], []
        self.begin, self.decode = model.begin, model.decode
        self.guidance_weight, self.draws = model.guidance_weight, model.draws

    def logits(self, state, scale):
        self.inputs.append(state.x)
        self.condition = state.condition
        self.logits_of.append(self._model.logits(state, scale))
        return self.logits_of[-1]

    def accept(self, state, scale, tokens):
        self.tokens.append(tokens)
        self._model.accept(state, scale, tokens)


def norm(x, scale, shift):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift


def without_cache(transformer, inputs, condition):
    """Logits of all scales in one forward under the mask of training."""
    config, x = transformer.config, torch.cat(inputs, dim=1)
    level = torch.cat([torch.full((side * side,), k) for k, side in enumerate(config.sides)])
    hidden = level[:, None] < level[None, :]
    heads, size = config.heads, config.width // config.heads
    for block in transformer.blocks:
        six = block.ada_lin[1](functional.silu(condition)).view(len(x), 6, 1, -1).unbind(1)
        gate_1, gate_2, scale_1, scale_2, shift_1, shift_2 = six
        attn, h = block.attn, norm(x, scale_1, shift_1)
        q, k, v = (
            (h @ weight.T + bias).unflatten(-1, (heads, size)).transpose(1, 2)
            for weight, bias in zip(attn.mat_qkv.weight.chunk(3), (attn.q_bias, 0, attn.v_bias), strict=True)
        )
        q = q / q.norm(dim=-1, keepdim=True) * attn.scale_mul_1H11.clamp(max=math.log(100)).exp()
        weights = (q @ (k / k.norm(dim=-1, keepdim=True)).mT).masked_fill(hidden, -math.inf).softmax(-1)
        x = x + gate_1 * attn.proj((weights @ v).transpose(1, 2).flatten(2))
        x = x + gate_2 * block.ffn(norm(x, scale_2, shift_2))
    scale, shift = transformer.head_nm.ada_lin[1](functional.silu(condition)).view(len(x), 2, 1, -1).unbind(1)
    return transformer.head(norm(x, scale, shift))


def test_cached_keys_give_the_logits_and_tokens_of_one_masked_forward(model):
    kept = Kept(model)
    with torch.no_grad():
        generate(kept, Batch(("",) * 2, (3, 4), (5, 6)), SCHEDULE, GUIDED, CPU)
        whole = without_cache(model.transformer, kept.inputs, kept.condition)
    cached = torch.cat(kept.logits_of, dim=1)
    assert whole.std() > 0.1, "the model is not alive"
    assert torch.allclose(cached, whole, atol=2e-5)
    assert [t.shape for t in kept.tokens] == [(2, side * side) for side in (1, 2, 3, 4)]


def test_an_image_is_of_its_seed_and_class_and_not_of_its_batch(model):
    three = images(model)
    assert three.shape == (3, 3, 64, 64) and three.min() >= 0 and three.max() <= 1
    assert torch.equal(three, images(model))
    for row in range(3):
        alone = images(model, seeds=(row + 1,), classes=(row + 7,))
        assert (three[row] - alone[0]).abs().max() <= EQUAL
    assert (images(model, seeds=(9,), classes=(7,)) - three[0]).abs().max() > 0.01
    assert (images(model, seeds=(1,), classes=(700,)) - three[0]).abs().max() > 0.01


def test_data_parallel_ranks_make_their_share_of_the_batch(model, plan_of):
    plan = plan_of("--data_parallel_degree", "2", "--workload.batch_size", "4", world_size=2)
    batch = Batch(("",) * 4, (1, 2, 3, 4), (7, 8, 9, 10))
    whole = images(model, batch.seeds, batch.class_ids)
    report = LoadReport(0.0)
    shares = [AutoregressiveEngine(plan, model, CPU, rank, report).generate(batch) for rank in (0, 1)]
    assert [share.first_row for share in shares] == [0, 2]
    assert (torch.cat([share.images for share in shares]) - whole).abs().max() <= EQUAL


def test_without_guidance_there_is_one_half_and_at_scale_0_the_same_image(model):
    plain = images(model, options=SamplingOptions(None, 900, 0.95))
    assert (plain - images(model, options=SamplingOptions(0.0, 900, 0.95))).abs().max() <= EQUAL
    assert (plain - images(model)).abs().max() > 0.01
    assert [model.guidance_weight(k, 10, 4.0) for k in (0, 9)] == [1.0, 5.0]
    assert model.guidance_weight(3, 10, 4.0) == pytest.approx(1 + 4 / 3)


def test_neighbouring_scales_share_a_residual_convolution():
    shared = Quantizer(VqVaeConfig(vocabulary=8)).quant_resi
    # numpy.argmin(abs(numpy.linspace(1 / 12, 11 / 12, 4) - k / 9)), as the checkpoints were trained
    assert [shared.index(scale, 10) for scale in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]


def test_a_scales_tokens_are_looked_up_resized_and_mixed_with_their_convolution(model):
    quantizer, tokens = model.vae.quantize, torch.tensor([[3, 1, 4, 1]])
    before = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        after = quantizer.accumulate(before, tokens, 2, 1, 4)
        found = quantizer.embedding.weight[tokens[0]].T.view(1, 8, 2, 2)
        large = functional.interpolate(found, size=(4, 4), mode="bicubic")
        convolved = quantizer.quant_resi.qresi_ls[quantizer.quant_resi.index(1, 4)](large)
    assert torch.allclose(after - before, 0.5 * large + 0.5 * convolved, atol=1e-6)


def test_random_weights_fill_every_parameter_and_keep_attention_near_its_start(plan_of, own_spec):
    plan = plan_of("--workload.weights", "random", spec=own_spec)
    built = build_var(plan, None, CPU)
    for name, part in built.components.items():
        for key, value in part.named_parameters():
            assert value.isfinite().all() and value.abs().max() > 0 and not value.is_meta, (name, key)
            if key.endswith("scale_mul_1H11"):
                assert (value - math.log(4)).abs().max() < 0.5
    again = build_var(plan, None, CPU)
    assert torch.equal(images(built), images(again))
    assert images(built).std() > 0.01


def test_a_16_bit_model_generates(plan_of):
    half = build_var(plan_of("--workload.dtype", "bfloat16"), None, CPU)
    assert images(half).dtype == torch.bfloat16 and images(half).isfinite().all()
