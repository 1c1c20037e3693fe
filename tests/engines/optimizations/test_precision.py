"""Weights in fewer bits: bytes and dtypes are counted on the tensors, and the image moves a little."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel

from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.engines.optimizations.precision import store_denoiser_in_fp8

CPU = Cluster(Rank(), torch.device("cpu"), None)


def psnr(a, b):
    return float(-10 * torch.log10((a.float() - b.float()).pow(2).mean()))


@pytest.mark.parametrize(
    ("model", "engine"),
    [
        ("tiny/flux", "xdit"),
        ("tiny/sd3", "diffusers"),
        ("tiny/hunyuandit", "diffusers"),
        ("tiny/sdxl", "xdit"),
    ],
)
@pytest.mark.parametrize("kind", ["int8-weight-only", "int8-dynamic", "fp8-weight-only"])
def test_quantised_blocks(run, exact, model, engine, kind):
    ran = run(model, "--engine", engine, "--quantization", kind, steps=2, counted=False)
    ((name, weights),) = ran.effects["weights"].items()
    small = "int8" if kind.startswith("int8") else "float8_e4m3fn"
    assert name == ("unet" if model == "tiny/sdxl" else "transformer")
    assert weights["bytes_by_dtype"][small] > 0.15 * weights["bytes"]
    assert weights["bytes"] == sum(weights["bytes_by_dtype"].values()) < 0.75 * weights["bytes_before"]
    bare = exact(model, engine, 2).images[0]
    assert 12 < psnr(ran.images[0], bare) < 90, "not the same, and not another picture"


def test_layerwise_storage_of_the_denoiser(run, exact):
    ran = run("tiny/flux", "--engine", "xdit", "--layerwise_fp8", steps=2, counted=False, dtype="bfloat16")
    weights = ran.effects["weights"]["transformer"]
    assert weights["bytes_by_dtype"]["float8_e4m3fn"] > 0.5 * weights["bytes"]
    assert weights["bytes"] < 0.75 * weights["bytes_before"]
    assert ran.images[0].dtype == torch.bfloat16
    assert 12 < psnr(ran.images[0], exact("tiny/flux", "xdit", 2, dtype="bfloat16").images[0]) < 90


def test_layerwise_storage_of_flux_at_full_size_is_as_the_docs_say():
    with torch.device("meta"):
        denoiser = FluxTransformer2DModel(guidance_embeds=True).to(torch.bfloat16)
    stored = store_denoiser_in_fp8(denoiser, torch.bfloat16)
    assert stored["bytes_before"] == 23_802_816_640
    assert stored["bytes_by_dtype"] == {"float8_e4m3fn": 8_653_744_128, "bfloat16": 6_495_328_384}
    text = (Path(__file__).parents[3] / "docs" / "performance.md").read_text(encoding="utf-8")
    assert "of 23.8 GB in bfloat16, 17.3 become 8.65 in float8, 6.5 stay: 15.1 GB" in text


@pytest.mark.parametrize(
    ("engine", "option", "component"),
    [
        ("diffusers", "--layerwise_fp8", "transformer"),
        ("xdit", "--quantization int8-weight-only", "transformer"),
        ("diffusers", "--use_fp8_t5_encoder", "text_encoder_2"),
    ],
)
def test_the_load_says_what_each_component_is_really_stored_in(cluster, plan_of, engine, option, component):
    words = ["--engine", engine, "--workload.dtype", "bfloat16", *option.split()]
    loaded = load_engine(plan_of("tiny/flux", *words), cluster)
    stored = loaded.report.facts["weight_bytes"]
    parts = loaded.components()
    loaded.close()
    assert set(stored) == {"transformer", "text_encoder", "text_encoder_2", "vae"}
    for name, sizes in stored.items():
        small = {dtype for dtype in sizes if "8" in dtype}
        assert bool(small) == (name == component), (name, sizes)
    held = {p: p for p in parts["text_encoder"].parameters()}
    assert stored["text_encoder"] == {"bfloat16": sum(2 * p.numel() for p in held)}


@pytest.mark.parametrize("model", ["tiny/flux", "tiny/sd3", "tiny/pixart-sigma", "tiny/hunyuandit"])
def test_t5_in_fp8(run, exact, model):
    ran = run(
        model, "--engine", "diffusers", "--use_fp8_t5_encoder", steps=2, counted=False, dtype="bfloat16"
    )
    ((name, weights),) = ran.effects["weights"].items()
    assert name.startswith("text_encoder")
    assert weights["bytes_by_dtype"]["float8_e4m3fn"] > 0
    assert weights["bytes"] < weights["bytes_before"]
    image, bare = ran.images[0], exact(model, "diffusers", 2, dtype="bfloat16").images[0]
    assert torch.isfinite(image).all()
    assert not torch.equal(image, bare)


def test_fp8_storage_is_what_the_layers_hold_between_calls(plan_of):
    engine = load_engine(plan_of("tiny/flux", "--use_fp8_t5_encoder", "--engine", "diffusers"), CPU)
    encoder = engine.components()["text_encoder_2"]
    attention = encoder.encoder.block[0].layer[0].SelfAttention
    assert attention.q.weight.dtype == torch.float8_e4m3fn
    assert encoder.shared.weight.dtype == encoder.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype
    assert encoder.shared.weight.dtype != torch.float8_e4m3fn, "T5 looks at these dtypes itself"
