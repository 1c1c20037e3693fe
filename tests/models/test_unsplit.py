"""HiDream, Chroma, AuraFlow, Kolors, CogView4, HunyuanImage: what runs, what is counted, what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.size import size_plan
from mlenergy.diffusion.engines.call import call_arguments, set_guiders
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.facts import scaled_size
from mlenergy.diffusion.models.groups.unsplit import LISTED, TINY
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.weights.tiny import tiny_folder

HIDREAM, HUNYUAN = "tiny/hidream", "tiny/hunyuanimage"
FULL_SIZE = "hunyuanvideo-community/HunyuanImage-2.1"
SIZES = {HIDREAM: (256, 256)}
QUICK = {"tiny/kolors"}  # a U-Net, and a text encoder that diffusers brings itself


def plan_of(model_id, *options, world_size=1, **workload):
    words = [word for key, value in workload.items() for word in (f"--workload.{key}", str(value))]
    args = parse_args([*options, "workload:t2i", "--workload.model_id", str(model_id), *words], "test")
    return make_plan(args, resolve_model(str(model_id)), world_size, "cpu", "some CPU")


@pytest.mark.parametrize("spec", [*LISTED, *TINY], ids=lambda spec: spec.model_id)
def test_a_listed_model_is_planned_on_one_process_and_in_groups(spec):
    plan = plan_of(spec.model_id)
    assert (plan.engine, plan.steps) == ("diffusers", spec.default_steps)
    assert set(spec.family.text_encoders) < set(spec.family.stages)
    shared = plan_of(spec.model_id, "--data_parallel_degree", "2", world_size=2, batch_size=2)
    assert shared.parallel.data == 2
    with pytest.raises(UserError, match=f"{spec.family.name} models are not predicted"):
        size_plan(plan)
    with pytest.raises(UserError, match=r"ulysses_degree: .*no plan to split its denoiser"):
        plan_of(spec.model_id, "--ulysses_degree", "2", world_size=2)


@pytest.mark.parametrize(
    "model", [pytest.param(s.model_id, marks=() if s.model_id in QUICK else pytest.mark.full) for s in TINY]
)
def test_a_run_times_its_stages_and_counts_its_work(model, tmp_path):
    height, width = SIZES.get(model, (64, 64))
    command = [sys.executable, "-m", "mlenergy.diffusion", "run", "--benchmark_iters", "1", "workload:t2i"]
    size = ["--workload.height", str(height), "--workload.width", str(width)]
    more = ["--workload.base_dir", str(tmp_path), "--workload.inference_steps", "2"]
    done = forked.run([*command, "--workload.model_id", model, *size, *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*/results.json")
    result = json.loads(path.read_text())
    assert result["effects_reason"] is None and result["executed_failed"] == []
    assert result["efficiency"]["reason"] is None
    work, stages = result["efficiency"]["stage_tflops"], result["stages"]
    assert all(work[name] > 0 for name in ("text_encode", "denoise_step", "vae_decode"))
    assert all(stages[f"{name}_s"]["mean"] > 0 for name in ("text_encode", "denoise", "vae_decode"))
    encoders = {name for name in result["load"][0]["facts"]["weight_bytes"] if name.startswith("text")}
    assert encoders == set(resolve_model(model).family.text_encoders)


@pytest.mark.parametrize(
    ("height", "width", "made"),
    [(1024, 1024, (1024, 1024)), (1360, 768, (1360, 768)), (512, 512, (1024, 1024)), (64, 96, (832, 1248))],
)
def test_hidream_makes_images_of_one_area(height, width, made):
    assert scaled_size(height, width, 128, 8) == made


@pytest.mark.full
def test_hidreams_pipeline_makes_the_size_that_is_predicted():
    import torch
    from diffusers import HiDreamImagePipeline

    pipeline = HiDreamImagePipeline.from_pretrained(tiny_folder(HIDREAM), dtype=torch.float32)
    options = {
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "output_type": "pt",
        "max_sequence_length": 16,
    }
    images = pipeline("a fox", height=64, width=96, **options).images
    assert tuple(images.shape[2:]) == scaled_size(64, 96, 128, 2)


def test_a_size_that_hidream_would_not_make_is_refused():
    words = (
        r"scales 96x64 to the area of 256x256 and makes 312x208; use --workload.height 208 --workload.width"
    )
    with pytest.raises(UserError, match=words):
        plan_of(HIDREAM, height=64, width=96)
    assert plan_of(HIDREAM, height=208, width=312).height_px == 208


def test_a_guider_gets_the_scale_that_the_call_does_not_take():
    from diffusers import AdaptiveProjectedMixGuidance

    pipeline = SimpleNamespace(guider=AdaptiveProjectedMixGuidance(guidance_scale=3.5), ocr_guider=None)
    plan = plan_of(HUNYUAN, guidance_scale=1.5)
    assert "distilled_guidance_scale" not in call_arguments(plan) and "guidance_scale" not in call_arguments(
        plan
    )
    set_guiders(plan, pipeline)
    assert (pipeline.guider.guidance_scale, pipeline.ocr_guider) == (1.5, None)
    distilled = plan_of(f"{FULL_SIZE}-Distilled-Diffusers", guidance_scale=2.5)
    assert call_arguments(distilled)["distilled_guidance_scale"] == 2.5
    set_guiders(distilled, pipeline)
    assert pipeline.guider.guidance_scale == 1.5


def test_a_folder_without_a_guider_is_a_distilled_model(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder(HUNYUAN), folder)
    assert resolve_model(str(folder)).guidance == "classifier-free"
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps(index | {"guider": [None, None], "ocr_guider": [None, None]})
    )
    assert resolve_model(str(folder)).guidance == "none"  # its denoiser takes no scale
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps(config | {"guidance_embeds": True}))
    spec = resolve_model(str(folder))
    assert (spec.guidance, spec.default_guidance_scale, spec.default_steps) == ("embedded", 3.25, 8)


@pytest.fixture
def without_llama(tmp_path):
    """A HiDream as it is published: its fourth text encoder is elsewhere."""
    folder, llama = tmp_path / "model", tmp_path / "llama"
    shutil.copytree(tiny_folder(HIDREAM), folder)
    shutil.move(folder / "text_encoder_4", llama)
    for file in (folder / "tokenizer_4").iterdir():
        shutil.move(file, llama / file.name)
    (folder / "tokenizer_4").rmdir()
    return folder, llama


def test_hidreams_llama_comes_from_its_own_repository(without_llama, monkeypatch):
    import torch

    from mlenergy.diffusion.weights import parts, pipeline
    from mlenergy.diffusion.weights.per_node import locate

    folder, llama = without_llama
    asked = []
    monkeypatch.setattr(parts, "download_folder", lambda name, *_: asked.append(name) or Path(llama))
    plan = plan_of(folder)
    loaded = pipeline.load(locate(plan), plan, "cpu")
    assert set(asked) == {"meta-llama/Meta-Llama-3.1-8B-Instruct"}
    whole = pipeline.load(locate(plan_of(HIDREAM)), plan_of(HIDREAM), "cpu")
    for mine, theirs in zip(
        loaded.text_encoder_4.parameters(), whole.text_encoder_4.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)
    assert loaded.tokenizer_4("a fox").input_ids == whole.tokenizer_4("a fox").input_ids


def test_a_llama_that_cannot_be_had_is_one_line(without_llama, monkeypatch):
    from mlenergy.diffusion.weights import parts
    from mlenergy.diffusion.weights.per_node import locate

    def refuse(name, *_):
        raise UserError(f"{name} is gated")

    monkeypatch.setattr(parts, "download_folder", refuse)
    words = "has no text_encoder_4 and tokenizer_4, which come from meta-llama/.* is gated. Or give a folder"
    with pytest.raises(UserError, match=words):
        locate(plan_of(without_llama[0]))
