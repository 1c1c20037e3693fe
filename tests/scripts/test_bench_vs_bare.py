"""Ours against bare diffusers: both sides have the same levers and do the same, or it is told."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import forked
import pytest

from mlenergy.diffusion.errors import UserError

WORKER = Path(__file__).parents[1] / "support" / "vs_bare_worker.py"
WORK = {"products": 90, "attention": {"aten.flash": 12}, "convolutions": 30, "channels_last": 0}


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    return importlib.import_module("bench_vs_bare")


def compared(*runs):
    """What the worker found of each run, a line of the script's options."""
    words = " -- ".join(f"--whole_text_encoder --side_px 64 --steps 2 {run}" for run in runs).split()
    done = forked.run([sys.executable, str(WORKER), *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_both_sides_have_the_levers_and_make_one_image():
    eager, levers = compared(
        "--model_id tiny/sdxl",
        "--model_id tiny/sdxl --fuse_qkv --unet_channels_last --vae_channels_last",
    )
    for run in (eager, levers):
        assert run["faults"] == [] and run["work"]["bare"] == run["work"]["ours"]
        assert run["difference"] <= 1e-5
    before, after = eager["work"]["bare"], levers["work"]["bare"]
    assert after["products"] < before["products"] and after["attention"] == before["attention"]
    assert before["channels_last"] == 0 and after["channels_last"] == after["convolutions"] > 20
    assert before["convolutions"] == after["convolutions"]


@pytest.mark.full
@pytest.mark.parametrize(
    "words",
    [
        "--model_id tiny/flux --use_torch_compile --fuse_qkv --vae_channels_last --compile_vae",
        "--model_id tiny/flux --engine xdit --fuse_qkv --attention_backend math",
        "--model_id tiny/pixart-sigma --use_torch_compile --compile_static_shapes",
        "--model_id tiny/sd3 --use_torch_compile --inductor_coordinate_descent",
        "--model_id tiny/sdxl --use_torch_compile --compile_mode whole --inductor_conv_1x1_as_mm",
        "--model_id tiny/qwen-image",
        "--model_id tiny/z-image",
        "--model_id tiny/flux2 --fuse_qkv",
    ],
)
def test_other_models_and_levers(words):
    (run,) = compared(words)
    assert run["faults"] == []
    assert bool(run["graphs"]["bare"]) == bool(run["graphs"]["ours"]) == ("compile" in words)


@pytest.mark.full
def test_the_script_itself(tmp_path, bench):
    words = ["--model_id", "tiny/flux", "--whole_text_encoder", "--side_px", "64", "--pairs", "2"]
    code = bench.main([*words, "--fuse_qkv", "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    assert code == (0 if report["not_slower_beyond_noise"] else 1) and report["faults"] == []
    assert report["levers"] == ["--fuse_qkv"] and report["bare_s"] > 0 and report["ours_s"] > 0
    assert [len(start) for start in report["pairs_s"]] == [2, 2, 2]


def test_recorded_graphs_are_no_lever_of_the_bare_side(bench):
    """Copies of outputs and marks of steps, which a pipeline of diffusers does not make."""
    options = bench.options_of(
        ["--model_id", "black-forest-labs/FLUX.1-dev", "--dtype", "bfloat16", "--use_torch_compile"]
    )
    options.levers += ["--compile_mode", "whole", "--inductor_mode", "reduce-overhead"]
    with pytest.raises(UserError, match="--inductor_mode reduce-overhead: a bare pipeline"):
        bench.plan_of(options, ("cuda", "NVIDIA H200"))


def report(bench, words="", ratios=(0.99, 1.0, 1.01), difference=0.0, work=None, graphs=0, more=()):
    options = bench.options_of(["--dtype", "float32", *words.split()])
    work = work or {"bare": WORK, "ours": WORK}
    pairs = [(2.0, 2.0 * one) for one in ratios]
    start = bench.Start(pairs, difference, work, {"bare": graphs, "ours": graphs})
    return bench.report_of(options, [start, *more])


@pytest.mark.parametrize("words", [["--starts", "1", "--pairs", "1"], ["--starts", "0"], ["--pairs", "-2"]])
def test_one_pair_is_refused_before_anything_runs(bench, capsys, words):
    with pytest.raises(SystemExit, match="2"):
        bench.main(words)
    assert "--starts and --pairs must be at least 1, and one of them 2" in capsys.readouterr().err


def test_the_interval_is_of_the_starts(bench):
    """Within each start the sides differ by the same 4 %, which is no property of the program."""
    slower = (1.04, 1.04, 1.04)
    assert not report(bench, ratios=slower)["not_slower_beyond_noise"]
    start = bench.Start([(2.0, 1.92)] * 3, 1e-3, {"bare": WORK, "ours": {**WORK, "products": 70}}, {})
    found = report(bench, ratios=slower, more=[start])
    assert found["not_slower_beyond_noise"] and found["ratio"]["geometric_mean"] == pytest.approx(0.9992)
    low, high = found["ratio"]["geometric_mean_ci95"]
    assert low < 0.96 and high > 1.04
    assert found["images_largest_difference"] == 1e-3 and len(found["faults"]) == 2


def test_slower_is_what_noise_does_not_explain(bench):
    even, slower = report(bench), report(bench, ratios=(1.04, 1.05, 1.06))
    assert even["not_slower_beyond_noise"] and not slower["not_slower_beyond_noise"]
    assert (slower["bare_s"], slower["ours_s"]) == (2.0, 2.1) and slower["pairs_s"][0][2] == (2.0, 2.12)
    assert slower["ratio"]["median"] == pytest.approx(1.05)
    assert slower["ratio"]["geometric_mean"] == pytest.approx((1.04 * 1.05 * 1.06) ** (1 / 3))
    assert report(bench, ratios=(0.9, 1.05, 1.2))["not_slower_beyond_noise"], "noise of 15 %"
    assert report(bench, ratios=(0.8, 0.81, 0.82))["not_slower_beyond_noise"], "ours may be faster"


def test_two_sides_that_are_no_pair_are_told(bench):
    assert report(bench)["faults"] == []
    other = {"bare": WORK, "ours": {**WORK, "products": 70}}
    assert report(bench, work=other)["faults"] == ["products: 90 on the bare side, 70 on ours"]
    assert report(bench, difference=1e-3)["faults"] == ["images differ by 0.001, more than 1e-05"]
    (one, two) = report(bench, "--use_torch_compile")["faults"]
    assert one == "nothing was compiled on the side bare" and two.endswith("ours")
    assert report(bench, "--use_torch_compile", graphs=2)["faults"] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--vae_tiling", "--vae_tiling: a bare pipeline does not have it; leave it out"),
        ("--model_id tiny/flux --use_fbcache", ": a bare pipeline does not have it"),
        ("--fuse_kqv", "there is no option --fuse_kqv"),
        ("--vae_channels_last --cudnn_benchmark", "--cudnn_benchmark is for NVIDIA GPUs"),
    ],
)
def test_a_lever_that_bare_diffusers_has_not_is_refused(bench, capsys, words, told):
    assert bench.main(["--dtype", "float32", *words.split()]) == 2
    assert told in capsys.readouterr().err
