"""The generic family: what is known of a pipeline that no family describes, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys

import forked
import numpy as np
import pytest
from PIL import Image

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.cost.flops import flops_of
from mlenergy.diffusion.cost.size import size_plan
from mlenergy.diffusion.engines.call import call_arguments
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.families import FAMILIES
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.models.signature import REQUIRED, call_of
from mlenergy.diffusion.report.plan_view import plan_as_dict
from mlenergy.diffusion.weights.tiny import tiny_folder

UNKNOWN = "PixArtSigmaPAGPipeline"  # takes the components of PixArt-Sigma
SIZE = ["--workload.height", "64", "--workload.width", "96"]


@pytest.fixture
def folder(tmp_path):
    """A model whose pipeline no family describes, with weights."""
    where = tmp_path / "model"
    shutil.copytree(tiny_folder("tiny/pixart-sigma"), where)
    _index(where, _class_name=UNKNOWN)
    return where


def _index(where, **changes):
    path = where / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def plan_of(model_id, *options, world_size=1, **workload):
    words = [word for key, value in workload.items() for word in (f"--workload.{key}", str(value))]
    args = parse_args([*options, "workload:t2i", "--workload.model_id", str(model_id), *words], "test")
    return make_plan(args, resolve_model(str(model_id)), world_size, "cpu", "some CPU")


def run(folder, base, *options):
    command = [sys.executable, "-m", "mlenergy.diffusion", "run", *options, "--benchmark_iters", "1"]
    model = ["--workload.model_id", str(folder), *SIZE, "--workload.inference_steps", "2"]
    more = ["--workload.base_dir", str(base), "--workload.dataset", "bundled"]
    done = forked.run([*command, "workload:t2i", *model, *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = base.glob("*/results.json")
    return json.loads(path.read_text()), done.stdout, path.parent


def test_components_stages_and_defaults_are_those_of_the_pipeline(folder):
    spec = resolve_model(str(folder))
    assert UNKNOWN not in FAMILIES and spec.family.name == "generic"
    assert spec.family.stages == {
        "text_encoder": "text_encode",
        "transformer": "denoise",
        "vae": "vae_decode",
    }
    assert (spec.default_steps, spec.default_guidance_scale, spec.guidance) == (20, 4.5, "unknown")
    assert (spec.default_height_px, spec.default_max_sequence_length) == (1024, 300)
    assert spec.family.modes == {"diffusers": {"data"}} and spec.family.has_t5


def test_a_call_is_read_without_importing_diffusers():
    assert call_of("WanPipeline")["num_frames"] == 81
    assert call_of("StableDiffusionInpaintPipeline")["prompt"] is None
    assert call_of("FluxFillPipeline")["image"] is None
    assert call_of("NoSuchPipeline") is None
    assert call_of("VisualClozePipeline")["task_prompt"] is None
    assert REQUIRED not in call_of("FluxPipeline").values()


def test_a_plan_claims_no_tokens_and_predicts_nothing(folder):
    plan = plan_of(folder)
    found = plan_as_dict(plan)
    assert found["shapes"] == {"images": [1, 3, 1024, 1024], "latent": None, "tokens": None}
    assert found["sequence"]["image_tokens"] is None
    for needs in (size_plan, flops_of):
        with pytest.raises(UserError, match=f"no family describes {UNKNOWN}"):
            needs(plan)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--ulysses_degree", "2"], "--ulysses_degree: the diffusers engine does not offer it for generic"),
        (["--use_cfg_parallel"], "--use_cfg_parallel: the diffusers engine does not offer it"),
        (["--engine", "xdit"], "--engine xdit has no generic pipeline"),
        (["--use_fbcache"], "cache fbcache: the diffusers engine has none for generic models"),
        (["--attention_backend", "sdpa"], "no kernel can be chosen for the attention of generic models"),
    ],
)
def test_what_is_not_known_to_be_right_is_refused(folder, options, reason):
    with pytest.raises(UserError, match=reason):
        plan_of(folder, *options, world_size=2 if "--ulysses_degree" in options or "cfg" in options[0] else 1)


def test_a_negative_prompt_is_refused(folder):
    with pytest.raises(UserError, match="with a negative prompt is not known"):
        plan_of(folder, negative_prompt="grey")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"_class_name": "NoSuchPipeline"}, "has no pipeline NoSuchPipeline"),
        ({"_class_name": "WanImageToVideoPipeline"}, "its call wants image beside the prompt"),
        ({"_class_name": "StableAudioPipeline"}, "its call takes no height"),
        ({"vae": [None, None]}, "it has no component vae"),
        (
            {"transformer_2": ["diffusers", "PixArtTransformer2DModel"]},
            "is not one component, transformer or unet",
        ),
    ],
)
def test_what_makes_no_image_of_a_text_is_refused(folder, changes, reason):
    _index(folder, **changes)
    with pytest.raises(UserError, match=reason):
        resolve_model(str(folder))


def test_a_run_counts_its_work_as_it_runs(folder, tmp_path):
    result, printed, _ = run(folder, tmp_path / "generic")
    work = result["efficiency"]
    plan = plan_of("tiny/pixart-sigma", inference_steps=2, height=64, width=96, max_sequence_length=300)
    known = flops_of(plan)
    assert work["reason"] is None and "arithmetic" in printed
    stages = {name: tera * 1e12 for name, tera in work["stage_tflops"].items()}
    assert stages["text_encode"] == pytest.approx(known.text_encode, rel=1e-6)
    assert stages["vae_decode"] == pytest.approx(known.vae_decode, rel=1e-6)
    # Its own guidance is a third row of the batch, of which some attention layers do nothing.
    assert 1.45 < stages["denoise_step"] / known.denoise_step < 1.5
    assert work["tflops_per_iteration"] * 1e12 == pytest.approx(
        stages["text_encode"] + 2 * stages["denoise_step"] + stages["vae_decode"], rel=1e-6
    )
    assert result["executed"]["denoiser_calls_planned"] is None
    assert result["executed"]["denoiser_calls_least"] == 2
    assert result["stages"]["text_encode_s"]["mean"] > 0


@pytest.mark.full
def test_groups_make_the_images_of_one_process(folder, tmp_path):
    alone, _, one = run(folder, tmp_path / "one", "--workload.batch_size", "2")
    shared, _, two = run(
        folder, tmp_path / "two", "--data_parallel_degree", "2", "--workload.batch_size", "2"
    )
    assert shared["efficiency"]["tflops_per_iteration"] == pytest.approx(
        alone["efficiency"]["tflops_per_iteration"], rel=1e-6
    )
    for entry, other in zip(alone["generation_results"], shared["generation_results"], strict=True):
        pixels = [
            np.asarray(Image.open(where / made["image"]), dtype=int)
            for where, made in ((one, entry), (two, other))
        ]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1


@pytest.mark.parametrize("made", [(1, 3, 64, 64), (1, 1, 64, 96)])
def test_images_of_another_size_are_not_measured(folder, made):
    import torch

    from mlenergy.diffusion.engines.call import check_outputs

    plan = plan_of(folder, height=64, width=96)
    check_outputs(plan, torch.zeros(1, 3, 64, 96))
    with pytest.raises(UserError, match=rf"makes images of {made[3]}x64 in {made[1]} channels"):
        check_outputs(plan, torch.zeros(made))
    with pytest.raises(UserError, match="gives no tensor of images"):
        check_outputs(plan, ["a picture"])


def _video_folder(where, class_name, transformer, vae, scheduler="FlowMatchEulerDiscreteScheduler"):
    parts = {"transformer": transformer, "vae": vae}
    index = {
        "_class_name": class_name,
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "scheduler": ["diffusers", scheduler],
        **{name: ["diffusers", "X"] for name in parts},
    }
    (where / "model_index.json").write_text(json.dumps(index))
    for name, config in parts.items():
        (where / name).mkdir()
        (where / name / "config.json").write_text(json.dumps(config))
    return str(where)


@pytest.mark.parametrize(
    ("class_name", "transformer", "frames", "size", "argument"),
    [
        ("MochiPipeline", {}, 19, (480, 832), "num_frames"),
        (
            "AllegroPipeline",
            {"sample_height": 90, "sample_width": 160, "sample_frames": 22},
            *(88, (720, 1280), "num_frames"),
        ),
    ],
)
def test_pipelines_of_videos_have_the_defaults_of_their_call(
    tmp_path, class_name, transformer, frames, size, argument
):
    vae = {"block_out_channels": [8, 8, 8, 8], "temporal_compression_ratio": 4}
    spec = resolve_model(_video_folder(tmp_path, class_name, transformer, vae))
    assert spec.family.makes_video and spec.family.is_generic and spec.family.frames_argument == argument
    assert (spec.default_num_frames, spec.default_fps) == (frames, 10)
    assert (spec.default_height_px, spec.default_width_px) == size
    assert spec.family.modes == {"diffusers": {"data"}}
    args = parse_args(["workload:t2v", "--workload.model_id", str(tmp_path)], "test")
    plan = make_plan(args, spec, 1, "cpu", "some CPU")
    assert call_arguments(plan)[argument] == frames


def test_a_vae_of_tiles_alone_wants_tiling(tmp_path):
    folder = _video_folder(tmp_path, "AllegroPipeline", {}, {"block_out_channels": [8, 8, 8, 8]})
    index = tmp_path / "model_index.json"
    index.write_text(
        json.dumps(json.loads(index.read_text()) | {"vae": ["diffusers", "AutoencoderKLAllegro"]})
    )
    words = ["workload:t2v", "--workload.model_id", folder]
    spec = resolve_model(folder)
    with pytest.raises(UserError, match="AllegroPipeline decodes in tiles alone; add --vae_tiling"):
        make_plan(parse_args(words, "test"), spec, 1, "cpu", "some CPU")
    assert make_plan(parse_args(["--vae_tiling", *words], "test"), spec, 1, "cpu", "some CPU").num_frames


_T5 = {
    "vocab_size": 98,
    "d_model": 32,
    "d_ff": 64,
    "d_kv": 8,
    "num_layers": 1,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}
_OF_NO_FAMILY = {
    "MochiPipeline": (
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "pooled_projection_dim": 16,
            "in_channels": 12,
            "text_embed_dim": 32,
            "time_embed_dim": 4,
            "max_sequence_length": 16,
        },
        {
            "encoder_block_out_channels": [32, 32, 32, 32],
            "decoder_block_out_channels": [32, 32, 32, 32],
            "layers_per_block": [1, 1, 1, 1, 1],
        },
        "FlowMatchEulerDiscreteScheduler",
        (64, 96, 7),
    ),
    "AllegroPipeline": (
        {
            "num_attention_heads": 2,
            "attention_head_dim": 24,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "cross_attention_dim": 48,
            "sample_height": 18,
            "sample_width": 18,
            "sample_frames": 6,
            "caption_channels": 32,
        },
        {
            "block_out_channels": [8, 8, 8, 8],
            "layers_per_block": 1,
            "norm_num_groups": 2,
            "sample_size": 144,  # of a tile
        },
        "EulerAncestralDiscreteScheduler",
        (192, 144, 24),
    ),
}


def _tiny_video(class_name, where):
    """A pipeline that no family describes, built as this package builds its tiny ones."""
    import torch

    from mlenergy.diffusion.models.architectures.reader import Architecture, Component, Tokenizer
    from mlenergy.diffusion.weights.random.pipeline import build_random_pipeline

    name = class_name.removesuffix("Pipeline")
    transformer, vae, scheduler, _ = _OF_NO_FAMILY[class_name]
    parts = {
        "transformer": Component("transformer", f"diffusers.{name}Transformer3DModel", transformer, seed=1),
        "vae": Component("vae", f"diffusers.AutoencoderKL{name}", vae, seed=2),
        "text_encoder": Component("text_encoder", "transformers.T5EncoderModel", _T5, seed=3),
        "scheduler": Component("scheduler", f"diffusers.{scheduler}", {}),
    }
    tokenizer = Tokenizer("tokenizer", "transformers.T5Tokenizer", 98, 512, sentinels=0)
    model = Architecture(str(where), class_name, parts, {"tokenizer": tokenizer}, {}, {})
    build_random_pipeline(model, "cpu", torch.float32).save_pretrained(where)


@pytest.mark.full
@pytest.mark.parametrize("class_name", _OF_NO_FAMILY)
def test_mochi_and_allegro_run_and_count_their_work(class_name, tmp_path):
    folder, base = tmp_path / "model", tmp_path / "runs"
    _tiny_video(class_name, folder)
    spec = resolve_model(str(folder))
    height, width, frames = _OF_NO_FAMILY[class_name][3]
    assert spec.family.is_generic and spec.family.makes_video
    command = [sys.executable, "-m", "mlenergy.diffusion", "run", "--benchmark_iters", "1"]
    command += ["--vae_tiling"] if spec.family.tiles_alone else []
    command += ["workload:t2v", "--workload.model_id", str(folder), "--workload.base_dir", str(base)]
    command += [
        "--workload.height",
        str(height),
        "--workload.width",
        str(width),
        "--workload.dtype",
        "float32",
    ]
    command += ["--workload.num_frames", str(frames), "--workload.inference_steps", "2"]
    command += ["--workload.dataset", "bundled-videos", "--workload.max_sequence_length", "16"]
    done = forked.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = base.glob("*/results.json")
    result = json.loads(path.read_text())
    work = result["efficiency"]
    assert work["reason"] is None and result["executed_failed"] == []
    assert all(work["stage_tflops"][name] > 0 for name in ("text_encode", "denoise_step", "vae_decode"))
    assert all(result["stages"][f"{name}_s"]["mean"] > 0 for name in ("text_encode", "denoise", "vae_decode"))
    assert list(path.parent.glob("video_outputs/*.mp4"))


def test_videos_of_other_frames_or_sizes_are_not_measured(tmp_path):
    import torch

    from mlenergy.diffusion.engines.call import check_outputs

    spec = resolve_model(_video_folder(tmp_path, "MochiPipeline", {}, {}))
    sizes = ["--workload.height", "64", "--workload.width", "96", "--workload.num_frames", "9"]
    args = parse_args(["workload:t2v", "--workload.model_id", str(tmp_path), *sizes], "test")
    plan = make_plan(args, spec, 1, "cpu", "some CPU")
    check_outputs(plan, torch.zeros(2, 9, 3, 64, 96))
    with pytest.raises(UserError, match=r"makes 7 frames where 9 were asked for; use .*num_frames 7"):
        check_outputs(plan, torch.zeros(1, 7, 3, 64, 96))
    with pytest.raises(UserError, match="makes videos of 96x32 in 3 channels"):
        check_outputs(plan, torch.zeros(1, 9, 3, 32, 96))
    with pytest.raises(UserError, match="gives no tensor of videos"):
        check_outputs(plan, torch.zeros(9, 3, 64, 96))
