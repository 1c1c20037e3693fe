"""Estimated peaks of activations against what torch's allocator reports of real calls on the CPU."""

from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.cost.count import Counter
from mlenergy.diffusion.cost.fit import _costs, _sizes
from mlenergy.diffusion.cost.inputs import LatentSize, denoiser_inputs, text_inputs
from mlenergy.diffusion.cost.memory import _decode_bytes
from mlenergy.diffusion.cost.shape import shape_of
from mlenergy.diffusion.models.architectures.reader import architecture, architecture_from
from mlenergy.diffusion.models.facts import latent_factor
from mlenergy.diffusion.models.hub import read_model
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.weights.random.fill import draw_by_name, materialise
from mlenergy.diffusion.weights.random.modules import empty_module
from mlenergy.diffusion.weights.tiny import tiny_folder

# Seen: at most 5.5 % too much for a denoiser (FLUX, two rows) and 0.1 % for a decoder.
DENOISER_ERROR, DECODER_ERROR, TILED_ERROR = 0.08, 0.02, 0.1
CPU = torch.device("cpu")
SMALL = {
    "black-forest-labs/FLUX.1-dev": {
        "num_layers": 2,
        "num_single_layers": 2,
        "num_attention_heads": 4,
        "joint_attention_dim": 256,
    },
    "stabilityai/stable-diffusion-3.5-medium": {
        "num_layers": 4,
        "num_attention_heads": 8,
        "caption_projection_dim": 512,
        "joint_attention_dim": 256,
        "pos_embed_max_size": 128,
        "dual_attention_layers": [0, 1],
    },
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": {
        "num_layers": 4,
        "num_attention_heads": 8,
        "cross_attention_dim": 576,
        "caption_channels": 256,
    },
    "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers": {
        "num_layers": 4,
        "num_attention_heads": 8,
        "hidden_size": 704,
        "cross_attention_dim": 128,
        "cross_attention_dim_t5": 256,
        "pooled_projection_dim": 128,
    },
    "stabilityai/stable-diffusion-xl-base-1.0": {
        "block_out_channels": [64, 128, 256],
        "attention_head_dim": [2, 4, 8],
        "transformer_layers_per_block": [1, 1, 2],
    },
}


@pytest.mark.parametrize(
    ("model_id", "dtype", "itemsize"),
    [
        # Both precisions of each model; `make test` takes them by turns.
        pytest.param(model_id, dtype, size, marks=() if place % 2 == turn else pytest.mark.full)
        for place, model_id in enumerate(SMALL)
        for turn, (dtype, size) in enumerate([(torch.float32, 4), (torch.bfloat16, 2)])
    ],
)
def test_denoiser(model_id, dtype, itemsize, allocated_peak_bytes):
    model = _narrow(model_id)
    text = 256
    net = materialise(empty_module(model.denoiser), CPU, dtype, draw_by_name(0, "denoiser"))
    inputs = denoiser_inputs(model, 2, LatentSize(48, 64), text, CPU, dtype)
    held = sum(leaf.nbytes for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor))
    real = allocated_peak_bytes(lambda: net(**inputs)) + held
    costs = costs_of(model)[model.denoiser.name]
    assert costs.activation_bytes_at(2, 48 * 64, text, itemsize) == pytest.approx(real, rel=DENOISER_ERROR)


def test_the_real_sizes_decoder(allocated_peak_bytes):
    """SDXL's own autoencoder, all 84 M parameters, at 128 pixels."""
    model = architecture("stabilityai/stable-diffusion-xl-base-1.0")
    vae = materialise(empty_module(model.components["vae"]), CPU, torch.float32, draw_by_name(0, "vae"))
    latents = torch.zeros(2, 4, 16, 16)
    real = allocated_peak_bytes(lambda: vae.decode(latents)) + latents.nbytes
    costs = costs_of(model)["vae"]
    assert costs.activation_bytes_at(2, 16 * 16, 0, 4) == pytest.approx(real, rel=DECODER_ERROR)


TILED = [
    # Model, and size in latent frames and cells.
    ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", (4, 40, 64)),
    ("zai-org/CogVideoX-5b", (7, 60, 90)),
    ("Lightricks/LTX-Video", (4, 20, 30)),
    ("hunyuanvideo-community/HunyuanVideo", (9, 40, 60)),
    ("black-forest-labs/FLUX.1-dev", (1, 160, 192)),
]


@pytest.mark.parametrize("sliced", [pytest.param(False, marks=pytest.mark.full), True])
@pytest.mark.parametrize(
    ("model_id", "size"),
    [pytest.param(*one, marks=() if one[0].startswith("zai") else pytest.mark.full) for one in TILED],
)
def test_a_decoder_in_tiles_and_slices(model_id, size, sliced, plan_of):
    """Against live bytes of diffusers' own tiled decoding, on the meta device."""
    model = architecture(model_id)
    counter = Counter(model)
    frames, height, width = size
    vae = counter.module("vae", torch.bfloat16)
    rows = 2 if sliced else 1
    if sliced:
        vae.enable_slicing()
    vae.enable_tiling()
    real = counter.decode_bytes(rows, LatentSize(height, width, frames), torch.bfloat16)
    factor, video = latent_factor(model.components["vae"].config), model_id != TILED[-1][0]
    words = ["--vae_tiling", *(["--vae_slicing"] if sliced else []), "--engine", "diffusers"]
    more = {"num_frames": (frames - 1) * resolve_model(model_id).frame_factor + 1} if video else {}
    plan = plan_of(
        model_id,
        *words,
        height=height * factor,
        width=width * factor,
        batch_size=rows,
        dtype="bfloat16",
        **more,
    )
    estimate = _decode_bytes(plan, model, costs_of(model), shape_of(plan, model))
    assert estimate == pytest.approx(real, rel=TILED_ERROR)
    whole = replace(plan, optimizations=replace(plan.optimizations, vae_tiling=False))
    assert estimate < _decode_bytes(whole, model, costs_of(model), shape_of(whole, model))


def test_the_real_sizes_text_encoder(allocated_peak_bytes):
    """CLIP ViT-L's text model at one row (its peak is small, so a fixed part shows)."""
    model = architecture("black-forest-labs/FLUX.1-dev")
    part = model.components["text_encoder"]
    net = materialise(empty_module(part), CPU, torch.float32, draw_by_name(0, "text"))
    real = allocated_peak_bytes(lambda: net(**text_inputs(part, 1, 77, CPU)))
    assert costs_of(model)["text_encoder"].activation_bytes_at(1, 0, 77, 4) == pytest.approx(real, rel=0.25)


def test_a_tiny_model_at_its_own_size(allocated_peak_bytes):
    model = architecture_from(read_model(str(tiny_folder("tiny/flux"))))
    model = replace(model, costs=_denoiser_costs(model))
    net = materialise(empty_module(model.denoiser), CPU, torch.float32, draw_by_name(0, "denoiser"))
    inputs = denoiser_inputs(model, 1, LatentSize(32, 32), 64, CPU, torch.float32)
    held = sum(leaf.nbytes for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor))
    real = allocated_peak_bytes(lambda: net(**inputs)) + held
    estimate = costs_of(model)["transformer"].activation_bytes_at(1, 32 * 32, 64, 4)
    assert estimate == pytest.approx(real, rel=DENOISER_ERROR)


def _narrow(model_id):
    model = architecture(model_id)
    part = replace(model.denoiser, config={**model.denoiser.config, **SMALL[model_id]})
    one = {part.name: part, "vae": model.components["vae"]}
    # Text encoders stay in the architecture, since they say that the denoiser takes T5's text.
    slim = replace(model, components={**model.components, **one}, costs={})
    return replace(slim, costs=_denoiser_costs(slim))


def _denoiser_costs(model):
    counter, part = BytesAlone(model), model.denoiser
    return {"components": {part.name: _sizes(counter, part) | _costs(counter, part)}}


class BytesAlone(Counter):
    """Counts no FLOPs and no kernels, which are two thirds of the time."""

    def denoiser(self, *_):
        return 0

    def denoiser_kernels(self, *_):
        return {"matmul_flops": 0.0}
