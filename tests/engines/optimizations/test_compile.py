"""torch.compile with its real code generator: graphs are counted, blocks share them, images stay."""

import pytest
import torch
from optimization_batches import FOX

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


def test_blocks_of_a_class_are_compiled_once_and_a_cache_stays_outside(cluster, plan_of):
    words = ["--engine", "diffusers", "--use_torch_compile", "--use_fbcache", "--cache_threshold", "0.9"]
    engine = load_engine(plan_of("tiny/flux", *words, "--workload.inference_steps", "8"), cluster)
    images = [engine.generate(FOX).images for _ in range(2)]
    effects = engine.effects(1)
    compiled = effects["compile"]
    assert compiled["mode"] == "regional" and compiled["regions"] == 8
    # Two classes of blocks, and the first one once more where a length has become variable.
    assert 2 <= compiled["graphs"] <= 4 < compiled["regions"]
    assert compiled["graph_breaks"] == 0
    assert compiled["compile_s"] > 0.1 and compiled["compile_in_windows_s"] == 0
    assert torch.equal(*images)
    cached = effects["cache"]
    assert cached["denoiser_calls"] == 8, "one of the two calls, and not the look at the kernels"
    assert cached["computed_share"] < 0.9, "of one call: the cache skips compiled blocks"
    optimizations = Optimizations(compile_mode="regional", cache="fbcache", cache_threshold=0.9)
    assert optimizations_without_effect(optimizations, [effects]) == []


@pytest.mark.full
def test_attention_that_is_led_elsewhere_is_compiled_once_too(run, exact):
    words = ["--engine", "diffusers", "--use_torch_compile", "--attention_backend", "math"]
    ran = run("tiny/sd3", *words, steps=2, counted=False)
    compiled = ran.effects["compile"]
    assert compiled["regions"] == 4 and compiled["graph_breaks"] == 0
    assert compiled["graphs"] == 2, "the last block has no text to return"
    assert torch.allclose(ran.images[0], exact("tiny/sd3", "diffusers", 2).images[0], atol=2e-4)


@pytest.mark.parametrize(
    ("model", "engine"),
    [
        ("tiny/hunyuandit", "diffusers"),
        *(
            pytest.param(f"tiny/{model}", engine, marks=pytest.mark.full)
            for model in (
                "flux",
                "sd3",
                "sd3.5",
                "pixart-alpha",
                "pixart-sigma",
                "hunyuandit",
                "sdxl",
                "sd1.5",
            )
            for engine in ("diffusers", "xdit")
            if (model, engine) not in (("hunyuandit", "diffusers"), ("sd1.5", "xdit"))
        ),
    ],
)
def test_blocks_are_traced_whole(run, monkeypatch, model, engine):
    """Graphs alone, without the code that is made of them."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda part, **_: compile_(part, backend="eager"))
    words = ["--engine", engine, "--use_torch_compile", "--compile_mode", "regional"]
    compiled = run(model, *words, steps=2, counted=False).effects["compile"]
    assert compiled["graphs"] >= 1 and compiled["graph_breaks"] == 0


@pytest.mark.full
def test_a_whole_denoiser_in_the_xdit_engine(run, exact):
    words = ["--engine", "xdit", "--use_torch_compile", "--compile_mode", "whole"]
    ran = run("tiny/pixart-sigma", *words, steps=2, counted=False)
    compiled = ran.effects["compile"]
    assert compiled["mode"] == "whole" and compiled["regions"] == 1 and compiled["graphs"] >= 1
    assert compiled["compile_s"] > 0.1
    assert torch.allclose(ran.images[0], exact("tiny/pixart-sigma", "xdit", 2).images[0], atol=2e-4)


def test_a_denoiser_that_was_not_compiled_is_named():
    effects = {"compile": {"graphs": 0}, "attention": {"kernels": None}}
    assert (
        "compiled no graph" in optimizations_without_effect(Optimizations(compile_mode="whole"), [effects])[0]
    )
