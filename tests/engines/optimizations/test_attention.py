"""The asked-for attention is the one that torch's dispatcher sees, in every family and both engines."""

import pytest
import torch

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect

FLASH, SOFTMAX = "aten._scaled_dot_product_flash_attention_for_cpu.default", "aten._safe_softmax.default"
# Model -> its attention layers in one call of the denoiser, and of them those with text alone as keys.
LAYERS = {
    "tiny/flux": (8, 0),
    "tiny/sd3": (4, 0),
    "tiny/pixart-alpha": (8, 4),
    "tiny/hunyuandit": (9, 5),
    "tiny/sdxl": (22, 0),
}


@pytest.mark.parametrize(
    ("model", "engine"),
    [(model, engine) for model in LAYERS for engine in ("diffusers", "xdit")] + [("tiny/sd1.5", "diffusers")],
)
def test_math_takes_the_kernels_place(run, exact, model, engine):
    every, kept = LAYERS.get(model, (20, 0))
    bare = exact(model, engine, 2)
    assert bare.effects["attention"]["kernels"] == {FLASH: every}
    ran = run(model, "--engine", engine, "--attention_backend", "math", steps=2)
    expected = {SOFTMAX: every - kept} | ({FLASH: kept} if kept else {})
    assert ran.effects["attention"]["kernels"] == expected
    assert torch.allclose(ran.images[0], bare.images[0], atol=2e-4)


def test_flash_and_sdpa_are_what_the_cpu_does_anyway(run, exact):
    for name in ("flash", "sdpa"):
        ran = run("tiny/flux", "--engine", "diffusers", "--attention_backend", name, steps=2)
        assert ran.effects["attention"] == {"asked": name, "kernels": {FLASH: 8}, "reason": None}
        assert torch.equal(ran.images[0], exact("tiny/flux", "diffusers", 2).images[0])


def test_a_choice_does_not_leak_into_the_next_model(run):
    run("tiny/sd3", "--engine", "diffusers", "--attention_backend", "math", steps=2)
    ran = run("tiny/flux", "--engine", "diffusers", steps=2)
    assert ran.effects["attention"]["kernels"] == {FLASH: 8}


def test_a_kernel_that_did_not_run_is_named():
    effects = {"attention": {"asked": "cudnn", "kernels": {FLASH: 8}, "reason": None}}
    (line,) = optimizations_without_effect(Optimizations(attention="cudnn"), [effects])
    assert "cudnn was not used" in line and "flash_attention_for_cpu" in line
    seen = {"attention": {"kernels": {"aten._scaled_dot_product_cudnn_attention.default": 57}}}
    assert optimizations_without_effect(Optimizations(attention="cudnn"), [seen]) == []
    assert (
        optimizations_without_effect(Optimizations(attention="cudnn"), [{"attention": {"kernels": None}}])
        == []
    )
