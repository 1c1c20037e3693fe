"""Kernels of a call, counted on the meta device, against counts by hand and the FLOP counter's."""

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.cost.count import Counter
from mlenergy.diffusion.cost.inputs import LatentSize
from mlenergy.diffusion.cost.kernels import kernel_work
from mlenergy.diffusion.models.architectures.reader import architecture, counted_ids


def test_counts_by_hand():
    layer = torch.nn.Linear(64, 256, device="meta", dtype=torch.bfloat16)
    given = torch.zeros(3, 10, 64, device="meta", dtype=torch.bfloat16)
    query = torch.zeros(3, 4, 10, 40, device="meta", dtype=torch.bfloat16)

    def call():
        functional.gelu(layer(given).transpose(1, 2))
        functional.scaled_dot_product_attention(query, query, query)

    assert kernel_work(call) == {
        "matmul_flops": 2 * 30 * 64 * 256,
        "matmul_flops_per_side": 2 * 30 * 256,
        "matmul_flops_a_row": 2 * 64 * 256,
        "attention_flops": 4 * 3 * 4 * 10 * 10 * 64,  # a head of 40 runs in a kernel for 64
        "attention_scores": 3 * 4 * 10 * 10,
        "elementwise_bytes": 2 * 2 * 30 * 256,  # gelu reads and writes; a transposed view moves nothing
        "kernels": 3,
    }


def test_a_convolution_is_a_product_of_its_pixels_and_what_acts_in_place_moves_bytes():
    layer = torch.nn.Conv2d(8, 16, 3, padding=1, device="meta")
    image = torch.zeros(2, 8, 5, 5, device="meta")
    work = kernel_work(lambda: layer(image).relu_())
    assert work["matmul_flops"] == 2 * (2 * 5 * 5) * 16 * (8 * 9)
    assert work["matmul_flops_per_side"] == work["matmul_flops"] / 16
    assert work["elementwise_bytes"] == 2 * 4 * 2 * 16 * 25
    assert work["kernels"] == 2


@pytest.mark.parametrize("model_id", ["tiny/flux", "tiny/pixart-sigma"])
def test_products_and_attention_are_the_flops(model_id):
    counter = Counter(architecture(model_id))
    work = counter.denoiser_kernels(2, LatentSize(16, 16), 32)
    flops = counter.denoiser(2, LatentSize(16, 16), 32)
    heads = counter.architecture.denoiser.config["attention_head_dim"]
    attention = work["attention_scores"] * 4 * heads
    assert work["matmul_flops"] + attention == pytest.approx(flops, rel=1e-3)
    assert work["attention_flops"] == work["attention_scores"] * 4 * -(-heads // 32) * 32


@pytest.mark.parametrize("model_id", sorted(counted_ids()))
def test_every_shipped_architecture_has_them(model_id):
    for part in costs_of(architecture(model_id)).values():
        work = part.kernels_at(4096, 256, 1024)
        assert work["kernels"] > 0 and work["matmul_flops"] > 0 and work["elementwise_bytes"] > 0


def test_the_shipped_counts_are_those_of_the_module():
    model = architecture("black-forest-labs/FLUX.1-dev")
    with FlopCounterMode(display=False):
        counted = Counter(model).denoiser_kernels(1, LatentSize(40, 56), 192)
    known = costs_of(model)[model.denoiser.name].kernels_at(40 * 56, 192)
    assert known == pytest.approx(counted, rel=1e-4)


@pytest.mark.parametrize(
    ("model_id", "frames"), [("tiny/wan", 8), ("tiny/hunyuanvideo", 15), ("tiny/ltx", 9)]
)
def test_a_decoder_of_videos_starts_kernels_for_each_latent_frame(model_id, frames):
    """Counts of more frames, and of other frames, than those that the shipped counts were fitted to."""
    model = architecture(model_id)
    counted = Counter(model).decode_kernels(1, LatentSize(10, 12, frames))
    known = costs_of(model)["vae"].kernels_at(10 * 12 * frames, 0, 10 * 12)
    assert known["kernels"] == pytest.approx(counted["kernels"], abs=0.1)
    assert known["matmul_flops_a_row"] == pytest.approx(counted["matmul_flops_a_row"], rel=1e-6)
