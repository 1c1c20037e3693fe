"""HunyuanVideo 1.5, LTX-2, Latte: what is planned and refused, what a run times and counts."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import forked
import pytest

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.size import size_plan
from mlenergy.diffusion.engines.call import call_arguments, set_guiders
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.groups import hunyuan_video15, latte, ltx2
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.results.executed import planned_work
from mlenergy.diffusion.weights.tiny import tiny_folder

HUNYUAN, LTX2, LATTE = "tiny/hunyuanvideo1.5", "tiny/ltx2", "tiny/latte"
SPECS = [spec for group in (hunyuan_video15, ltx2, latte) for spec in (*group.LISTED, *group.TINY)]
QUICK = {LTX2}


def plan_of(model_id, *options, world_size=1, **workload):
    words = [word for key, value in workload.items() for word in (f"--workload.{key}", str(value))]
    args = parse_args([*options, "workload:t2v", "--workload.model_id", str(model_id), *words], "test")
    return make_plan(args, resolve_model(str(model_id)), world_size, "cpu", "some CPU")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.model_id)
def test_a_listed_model_is_planned_alone_and_in_parallel(spec):
    plan = plan_of(spec.model_id)
    assert (plan.num_frames, plan.fps) == (spec.default_num_frames, spec.default_fps)
    assert set(spec.family.text_encoders) | set(spec.family.decoders) < set(spec.family.stages)
    assert plan_of(spec.model_id, "--engine", "xdit", "--ulysses_degree", "2", world_size=2).engine == "xdit"
    assert (
        plan_of(spec.model_id, "--engine", "diffusers", "--use_cfg_parallel", world_size=2).parallel.cfg == 2
    )
    with pytest.raises(UserError, match=f"{spec.family.name} models are not predicted"):
        size_plan(plan)
    with pytest.raises(
        UserError, match=r"the diffusers engine does not offer it .*plan of its transformer.*--engine xdit"
    ):
        plan_of(spec.model_id, "--engine", "diffusers", "--ulysses_degree", "2", world_size=2)


def test_latents_and_tokens_are_those_of_the_published_shapes():
    small = plan_of("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v")
    large = plan_of("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v")
    assert (small.latent_frames, small.tokens) == (31, 31 * 30 * 53)
    assert (large.latent_frames, large.tokens) == (31, 31 * 45 * 80)
    sound = plan_of("Lightricks/LTX-2")
    assert (sound.latent_frames, sound.tokens) == (16, 16 * 16 * 24)
    every = plan_of("maxin-cn/Latte-1")
    assert (every.latent_frames, every.tokens) == (16, 16 * 32 * 32)


@pytest.mark.parametrize(
    ("model", "workload", "line"),
    [
        (LATTE, {"num_frames": 5}, r"laid out for 9 frames; use 9, or 1"),
        (LTX2, {"max_sequence_length": 60}, r"multiples of 16 text tokens; use 48 or 64"),
        (LTX2, {"max_sequence_length": 8}, r"multiples of 16 text tokens; use 16"),
        ("Lightricks/LTX-2", {"max_sequence_length": 1000}, r"multiples of 128 text tokens; use 896 or 1024"),
        (LTX2, {"num_frames": 10}, r"multiples of 8 after it; use 9 or 17"),
        (HUNYUAN, {"max_sequence_length": 64}, "has a fixed text length"),
        (HUNYUAN, {"batch_size": 2}, r"fails on a batch, of 2 here, .* add --vae_slicing"),
        ("maxin-cn/Latte-1", {"weights": "random"}, "no architecture of maxin-cn/Latte-1"),
    ],
)
def test_what_would_run_otherwise_is_refused(model, workload, line):
    with pytest.raises(UserError, match=line):
        plan_of(model, **workload)


@pytest.mark.parametrize(
    ("model", "options", "workload", "line"),
    [
        (
            LATTE,
            ["--use_cfg_parallel"],
            {},
            r"both halves of the guidance batch on each .*--engine diffusers",
        ),
        (HUNYUAN, ["--ulysses_degree", "2"], {"batch_size": 2}, "padding of hunyuan-video-1.5's"),
        (LTX2, ["--ring_degree", "2"], {"height": 96, "num_frames": 1}, "9 tokens, which"),
        (LTX2, ["--tensor_parallel_degree", "2"], {}, "no plan of its weights"),
    ],
)
def test_a_mode_that_is_not_right_is_refused_with_its_reason(model, options, workload, line):
    with pytest.raises(UserError, match=line):
        plan_of(model, "--engine", "xdit", *options, world_size=2, **workload)


def test_ltx2_is_called_as_its_card_says_and_not_as_ltx_2_3():
    arguments = call_arguments(plan_of(LTX2))
    assert arguments["frame_rate"] == 8 and arguments["guidance_scale"] == 4.0
    # Else the denoiser is called three times a step.
    assert (arguments["stg_scale"], arguments["modality_scale"], arguments["use_cross_timestep"]) == (
        0,
        1,
        False,
    )
    assert arguments["audio_guidance_scale"] is None  # follows the video's


def test_a_later_ltx2_belongs_to_no_family(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder(LTX2), folder)
    assert resolve_model(str(folder)).family is ltx2.LTX2
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_prompt_embeddings": False}))
    assert resolve_model(str(folder)).family.is_generic


def test_latte_makes_as_many_frames_as_its_own_configuration_says(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder(LATTE), folder)
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"video_length": 5}))
    assert plan_of(folder).num_frames == 5
    with pytest.raises(UserError, match="laid out for 5 frames"):
        plan_of(folder, num_frames=9)


def test_the_guider_runs_no_second_call_where_the_plan_has_none():
    from diffusers import ClassifierFreeGuidance

    pipeline = SimpleNamespace(guider=ClassifierFreeGuidance(guidance_scale=6.0))
    for scale, calls in ((3.0, 2), (1.0, 1), (0.5, 1)):
        plan = plan_of(HUNYUAN, guidance_scale=scale)
        set_guiders(plan, pipeline)
        assert (plan.denoiser_calls_each_step, pipeline.guider.num_conditions) == (calls, calls)
        assert pipeline.guider.guidance_scale == scale and "guidance_scale" not in call_arguments(plan)


def test_the_denoiser_is_given_the_latents_and_their_conditions():
    plan = plan_of(HUNYUAN)
    assert planned_work(plan, 8, "Euler").elements == 17 * 3 * 4 * 6  # 8 channels, 8 of a condition, a mask
    assert planned_work(replace(plan, spec=resolve_model(LTX2)), 4, "Euler").elements == 2 * 8 * 2 * 2 * 3


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=() if m in QUICK else pytest.mark.full) for m in (HUNYUAN, LTX2, LATTE)]
)
def test_a_run_times_its_stages_and_counts_its_work(model, tmp_path):
    command = [sys.executable, "-m", "mlenergy.diffusion", "run", "--engine", "diffusers"]
    command += ["--benchmark_iters", "1", "workload:t2v", "--workload.model_id", model]
    more = ["--workload.base_dir", str(tmp_path), "--workload.inference_steps", "2"]
    done = forked.run([*command, *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*/results.json")
    result = json.loads(path.read_text())
    assert result["effects_reason"] is None and result["executed_failed"] == []
    assert result["efficiency"]["reason"] is None
    work, stages = result["efficiency"]["stage_tflops"], result["stages"]
    assert all(work[name] > 0 for name in ("text_encode", "denoise_step", "vae_decode"))
    assert all(stages[f"{name}_s"]["mean"] > 0 for name in ("text_encode", "denoise", "vae_decode"))
    family = resolve_model(model).family
    assert set(family.stages) <= set(result["load"][0]["facts"]["weight_bytes"])
    assert result["load"][0]["facts"].get("sound") == ("computed, not written" if model == LTX2 else None)
