"""Whole runs of real pipelines: the work that ran is the plan's, or the result is kept and refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import diffusers
import forked
import jsonschema
import pytest
import torch.distributed as dist
from own_models import TWO_BLOCKS, save_pipeline
from PIL import Image

import mlenergy.diffusion.benchmark as benchmark
from mlenergy.diffusion import run as run_module
from mlenergy.diffusion.cost import costs
from mlenergy.diffusion.models.architectures.reader import tiny_ids
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete

SCHEMAS = Path(benchmark.__file__).parent / "schema"
QUICK = {"tiny/sd1.5", "tiny/ltx"}
STEPS = 3


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Run the benchmark in this process: exit code, result folder, content of results.json, error lines."""

    def start(model, *options):
        words = ["--engine", "diffusers", "--device", "cpu", "--benchmark_iters", "2", "--warmup_iters", "0"]
        videos = model in BY_ID and BY_ID[model].family.makes_video
        words += ["workload:t2v" if videos else "workload:t2i", "--workload.model_id", model]
        words += ["--workload.dataset", "bundled"]
        height, width = SIZES.get(model, (64, 96))
        words += ["--workload.height", str(height), "--workload.width", str(width)]
        words += ["--workload.batch_size", "2"]
        words += ["--workload.inference_steps", str(STEPS), "--workload.base_dir", str(tmp_path / "base")]
        monkeypatch.setattr(sys, "argv", ["benchmark", *words, *options])
        try:
            code = benchmark.main()
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
        (folder,) = (tmp_path / "base").iterdir()
        result = json.loads((folder / "results.json").read_text())
        schema = json.loads((SCHEMAS / f"results-v{2 if videos else 1}.json").read_text())
        jsonschema.validate(result, schema, jsonschema.Draft202012Validator)
        return code, folder, result, capfd.readouterr().err

    return start


TWO_CALLS = (  # a step: with the prompt, and without
    *("tiny/flux2-klein", "tiny/lumina2", "tiny/qwen-image"),
    *("tiny/chroma", "tiny/cogview4", "tiny/hunyuanimage"),
    *("tiny/wan", "tiny/wan2.2", "tiny/wan2.2-ti2v", "tiny/hunyuanvideo1.5"),
)
SIZES = {"tiny/hidream": (256, 256), "tiny/hunyuanimage": (64, 128)}  # that they make; the others: 64 x 96
EMBEDDED = ("tiny/flux", "tiny/flux2", "tiny/hunyuanvideo")  # the guidance scale is an input


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=() if m in QUICK else pytest.mark.full) for m in tiny_ids()]
)
def test_what_runs_is_what_was_planned(run, model):
    # The VAE of HunyuanVideo 1.5 takes one video.
    code, folder, result, _ = run(model, *(["--vae_slicing"] if model == "tiny/hunyuanvideo1.5" else []))
    # PNDM, SD 1.5's own scheduler, makes a call more than it has steps.
    calls = STEPS + 1 if model == "tiny/sd1.5" else STEPS * (2 if model in TWO_CALLS else 1)
    executed = result["executed"]
    assert (code, result["executed_failed"], executed["reason"]) == (0, [], None)
    assert executed["denoiser_calls_planned"] == executed["denoiser_calls_least"] == calls
    assert (executed["explanation"] is None) == (calls == STEPS)
    rows = 2 * (1 if model in (*TWO_CALLS, *EMBEDDED) else 2)  # images, and guidance in the same call
    assert [one["denoiser"][0]["rows"] for one in result["iterations"]] == [calls * rows] * 2
    if "fps" in result:
        for made in result["generation_results"]:
            with av.open(str(folder / made["video"])) as stored:
                stream = stored.streams.video[0]
                size = (stream.width, stream.height, stream.average_rate)
                assert (*size, sum(1 for _ in stored.decode(video=0))) == (96, 64, result["fps"], 9)
    assert is_complete(RunPaths(folder, ""))


@pytest.mark.parametrize(
    ("dropped", "words"),
    [
        ({"num_inference_steps": 2}, "the denoiser ran 2 times in window 0 on rank 0"),
        ({"height": 128}, "latent values in window 0 on rank 0"),
    ],
)
def test_a_pipeline_that_takes_an_option_over_otherwise_is_refused_and_its_numbers_are_kept(
    run, monkeypatch, dropped, words
):
    real = diffusers.StableDiffusion3Pipeline.__call__
    monkeypatch.setattr(
        diffusers.StableDiffusion3Pipeline,
        "__call__",
        lambda self, **named: real(self, **{**named, **dropped}),
    )
    code, folder, result, err = run("tiny/sd3")
    (line,) = [line for line in err.splitlines() if line.startswith("mlenergy: error:")]
    assert code == 2 and words in line and words in result["executed_failed"][0]
    assert result["generation_time"] > 0 and len(list((folder / "image_outputs").iterdir())) == 4
    assert not is_complete(RunPaths(folder, ""))
    assert json.loads((folder / "status.json").read_text())["state"] == "failed"


@pytest.mark.full
def test_a_folder_with_a_vae_of_two_blocks_runs_and_counts_for_itself(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(costs, "subprocess", forked.AS_SUBPROCESS)  # beside the loading: not in this process
    folder = str(save_pipeline(tmp_path / "own", "tiny/sd3", {"vae": TWO_BLOCKS}))
    code, place, result, _ = run(folder)
    assert (code, result["executed_failed"]) == (0, [])
    assert Image.open(place / result["generation_results"][0]["image"]).size == (96, 64)
    # 2 images x 2 rows of guidance x 16 channels x 32 x 48 cells
    assert result["iterations"][0]["denoiser"][0]["elements"] == STEPS * 2 * 2 * 16 * 32 * 48
    assert result["efficiency"]["reason"] is None and result["efficiency"]["tflops_per_iteration"] > 0


def test_only_the_first_rank_counts_and_only_where_it_may(monkeypatch):
    counted = []
    monkeypatch.setattr(
        "mlenergy.diffusion.results.efficiency.count_ahead", lambda plan, say: counted.append(plan)
    )

    def ask(is_main, count_flops):
        context = SimpleNamespace(plan="plan", cluster=SimpleNamespace(rank=SimpleNamespace(is_main=is_main)))
        args, progress = SimpleNamespace(count_flops=count_flops), SimpleNamespace(say=print)
        return run_module._end_count(args, run_module._begin_count(args, context, progress))

    assert ask(is_main=False, count_flops=True) is None and not counted
    assert "--no_count_flops was given" in ask(is_main=True, count_flops=False) and not counted
    assert ask(is_main=True, count_flops=True) is None and counted == ["plan"]


@pytest.mark.full
def test_told_not_to_count_a_run_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(costs, "_ask_child", lambda asked: pytest.fail("counted"))
    folder = str(save_pipeline(tmp_path / "own", "tiny/sd3", {"vae": TWO_BLOCKS}))
    _, _, result, _ = run(folder, "--no_count_flops")
    assert result["efficiency"]["tflops_per_iteration"] is None
    assert "--no_count_flops" in result["efficiency"]["reason"]
