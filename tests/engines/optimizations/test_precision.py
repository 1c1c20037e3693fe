"""Weights in fewer bits: bytes and dtypes are counted on the tensors, and the image moves a little."""

import pytest
import torch

from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engines import load_engine

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
