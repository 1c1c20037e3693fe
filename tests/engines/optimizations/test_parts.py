"""Attention slices, VAE slices, VAE tiles, schedulers: counted calls and the classes that stepped."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from optimization_batches import FOX, WHALE

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.distributed.cluster import Cluster, Rank
from mlenergy.diffusion.engines import load_engine
from mlenergy.diffusion.engines.optimizations.effects import optimizations_without_effect
from mlenergy.diffusion.engines.optimizations.memory import VaeCalls
from mlenergy.diffusion.engines.optimizations.schedulers import replace_scheduler
from mlenergy.diffusion.weights.random.pipeline import build_random_pipeline

CPU = Cluster(Rank(), torch.device("cpu"), None)


@pytest.mark.parametrize("engine", ["diffusers", "xdit"])
def test_attention_slices_make_more_and_smaller_calls(run, exact, engine):
    ran = run("tiny/sdxl", "--engine", engine, "--attention_slicing", steps=2)
    bare = exact("tiny/sdxl", engine, 2)
    (kernel, calls), *others = ran.effects["attention"]["kernels"].items()
    assert kernel == "aten._softmax.default" and not others
    assert calls > sum(bare.effects["attention"]["kernels"].values())
    assert torch.allclose(ran.images[0], bare.images[0], atol=2e-4)


@pytest.mark.parametrize(
    ("asked", "decoded"), [("own", "float32"), ("float32", "float32"), ("float16", "float16")]
)
def test_sdxl_in_float16_decodes_in_the_type_that_was_asked_for(run, monkeypatch, asked, decoded):
    seen = []
    to = AutoencoderKL.to
    monkeypatch.setattr(AutoencoderKL, "to", lambda self, *a, **k: seen.append((a, k)) or to(self, *a, **k))
    words = ["--engine", "diffusers", "--vae_dtype", asked]
    ran = run("tiny/sdxl", *words, steps=2, dtype="float16", counted=False)
    assert ran.effects["vae_dtype"] == {"asked": asked, "decoded": decoded}
    # The batch and the look at the attention, each up and back; none where the VAE is held in its type.
    casts = [k["dtype"] for _, k in seen if "dtype" in k]
    assert casts == ([torch.float32, torch.float16] * 2 if asked == "own" else [])
    optimizations = Optimizations(vae_dtype=asked)
    assert optimizations_without_effect(optimizations, [ran.effects]) == []
    other = [{**ran.effects, "vae_dtype": {"asked": asked, "decoded": "bfloat16"}}]
    assert len(optimizations_without_effect(optimizations, other)) == (asked != "own")


@pytest.mark.parametrize("engine", ["diffusers", "xdit"])
def test_a_sliced_vae_decodes_one_image_at_a_time(run, exact, engine):
    ran = run("tiny/flux", "--engine", engine, "--vae_slicing", steps=2, batches=(WHALE,))
    found = {"decoder_calls": 2, "images_per_call": 1, "tiled": False, "cells_ratio": 1.0}
    assert ran.effects["vae"] == found
    assert torch.allclose(ran.images[0], exact("tiny/flux", engine, 2, (WHALE,)).images[0], atol=1e-4)


@pytest.mark.parametrize("engine", ["diffusers", "xdit"])
def test_a_tiled_vae_decodes_a_large_image_in_tiles(run, exact, engine):
    ran = run("tiny/flux", "--engine", engine, "--vae_tiling", steps=2)
    assert ran.effects["vae"]["decoder_calls"] > 1 and ran.effects["vae"]["tiled"]
    bare = exact("tiny/flux", engine, 2).images[0]
    assert ran.images[0].shape == bare.shape and not torch.equal(ran.images[0], bare)


def test_an_image_of_one_tile_is_named():
    def without_effect(*tiled):
        ranks = [
            {"vae": {"decoder_calls": 3, "images_per_call": 1, "tiled": one}, "attention": {"kernels": {}}}
            for one in tiled
        ]
        return optimizations_without_effect(Optimizations(vae_tiling=True), ranks)

    assert "in one tile" in without_effect(False, None)[0]  # three frames, each whole
    assert without_effect(True, None) == without_effect(None) == []


@pytest.mark.parametrize(("model", "calls"), [("tiny/wan", 3), ("tiny/ltx", 1)])
def test_tiles_of_videos_are_told_from_frames(model, calls):
    with torch.no_grad():
        pipeline = build_random_pipeline(model, "cpu", torch.float32)
        watch = VaeCalls(pipeline.vae, slicing=False, tiling=True)
        channels = pipeline.transformer.config.in_channels
        timestep = () if model == "tiny/wan" else (None,)
        for side in (4, 40 if model == "tiny/wan" else 18):
            watch.begin_call()
            frames = 3 if model == "tiny/wan" else 2
            pipeline.vae.decode(torch.randn(1, channels, frames, 2, side), *timestep)
            found = watch.record(0 if side == 4 else 1)
            assert found["tiled"] is (side > 4)
            assert found["decoder_calls"] == calls if side == 4 else found["decoder_calls"] > calls


CLASSES = {
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "euler": EulerDiscreteScheduler,
}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        # Each model and each scheduler once; the other pairs carry the mark full.
        pytest.param(model, name, marks=() if row == column else pytest.mark.full)
        for row, model in enumerate(("tiny/pixart-sigma", "tiny/hunyuandit", "tiny/sdxl", "tiny/sd1.5"))
        for column, name in enumerate(CLASSES)
    ],
)
def test_a_scheduler_steps_as_it_does_in_a_bare_pipeline(plan_of, run, model, name):
    ran = run(model, "--engine", "diffusers", "--scheduler", name, steps=3, counted=False)
    assert ran.effects["scheduler"]["class"] == CLASSES[name].__name__
    bare = load_engine(
        plan_of(
            model, "--engine", "diffusers", "--workload.inference_steps", "3", "--workload.dtype", "float32"
        ),
        CPU,
    )
    own = bare.pipeline.scheduler.config
    cut_off = {"clip_sample": own.get("clip_sample", False)} if name == "ddim" else {}
    bare.pipeline.scheduler = CLASSES[name].from_config(own, **cut_off)
    assert ran.effects["scheduler"]["prediction_type"] == own.prediction_type
    assert torch.equal(ran.images[0], bare.generate(FOX).images)


def test_ddim_meets_the_own_scheduler_where_steps_are_many(run, exact):
    """Its default cuts latents off at ±1, which leads to another image however many steps there are."""
    ran = run("tiny/sd1.5", "--engine", "diffusers", "--scheduler", "ddim", steps=24, counted=False)
    own = exact("tiny/sd1.5", "diffusers", 24).images[0]
    assert float((ran.images[0] - own).abs().mean()) < 0.1 * float(own.std())


@pytest.mark.parametrize(
    ("name", "model"),
    [
        *(("dpmsolver++", model) for model in ("tiny/flux", "tiny/sd3")),
        *(("unipc", model) for model in ("tiny/flux", "tiny/sd3")),
        ("euler", "tiny/sana"),  # whose own is a solver
    ],
)
def test_solvers_of_one_flow_meet_where_steps_are_many(run, exact, model, name):
    """A wrong prediction type would not lead to the same image; of the noise levels see test_settings.py."""

    def distance(steps):
        ran = run(model, "--engine", "diffusers", "--scheduler", name, steps=steps, counted=False)
        assert ran.effects["scheduler"]["prediction_type"] == "flow_prediction"
        return float((ran.images[0] - exact(model, "diffusers", steps).images[0]).abs().mean())

    few, many = distance(4), distance(48)
    assert 0 < many < 0.4 * few


@pytest.mark.parametrize("name", ["dpmsolver++", "unipc"])
def test_the_shift_by_size_stays_the_models_own(name):
    """Pipelines read these four from the scheduler, and take FLUX.1-dev's where they are missing."""
    own = {"base_image_seq_len": 128, "max_image_seq_len": 2048, "base_shift": 0.4, "max_shift": 1.0}
    pipeline = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **own))
    replace_scheduler(pipeline, name)
    assert {key: pipeline.scheduler.config[key] for key in own} == own


def test_euler_is_the_own_scheduler_of_a_flow(run, exact):
    ran = run("tiny/flux", "--engine", "xdit", "--scheduler", "euler", steps=2)
    assert ran.effects["scheduler"]["class"] == "FlowMatchEulerDiscreteScheduler"
    assert torch.equal(ran.images[0], exact("tiny/flux", "xdit", 2).images[0])
