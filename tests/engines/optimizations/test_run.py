"""Whole runs with optimizations: what has no effect ends one, and images are compared with a reference."""

import json
import os
import sys
from importlib import resources
from pathlib import Path

import forked
import jsonschema
import numpy as np
import pytest
from optimization_batches import words_of
from PIL import Image


def run(base, *words):
    options = ["--workload.inference_steps", "6", "--workload.base_dir", str(base), "--benchmark_iters", "2"]
    return forked.run(
        [
            *(sys.executable, "-m", "mlenergy.diffusion.benchmark", "--engine", "diffusers"),
            *words_of("tiny/flux", [*options, *words]),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An exact run, and one with a cache and 8-bit weights that is compared with it: folder and output."""
    base = tmp_path_factory.mktemp("exact")
    exact = run(base)
    assert exact.returncode == 0, exact.stderr
    (folder,) = base.iterdir()
    lossy_base = tmp_path_factory.mktemp("lossy")
    words = ["--use_fbcache", "--cache_threshold", "0.9", "--use_fp8_t5_encoder", "--reference", str(folder)]
    words += ["--preset", "fastest"]
    lossy = run(lossy_base, *words)
    assert lossy.returncode == 0, lossy.stderr
    (lossy_folder,) = lossy_base.iterdir()
    return folder, lossy_folder, lossy.stdout


def result_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_results_hold_the_knobs_and_what_they_did(runs):
    exact, lossy, _ = runs
    result = result_of(lossy)
    assert result["configuration"]["knobs"]["cache"] == "fbcache"
    (effects,) = result["effects"]
    assert effects["cache"]["denoiser_calls"] == 12, "two measured windows of six steps, no warm-up"
    assert effects["cache"]["computed_share"] < 1
    assert "float8_e4m3fn" in effects["weights"]["text_encoder_2"]["bytes_by_dtype"]
    assert set(result_of(exact)["effects"][0]) == {"attention", "scheduler", "vae_dtype"}
    schema = json.loads(
        (resources.files("mlenergy.diffusion") / "schema" / "results-v1.json").read_text("utf-8")
    )
    for folder in (exact, lossy):
        jsonschema.validate(result_of(folder), schema, jsonschema.Draft202012Validator)


def test_likeness_is_that_of_the_saved_files(runs):
    exact, lossy, _ = runs
    found = result_of(lossy)["similarity"]
    for entry, other, measured in zip(
        result_of(exact)["generation_results"],
        result_of(lossy)["generation_results"],
        found["images"],
        strict=True,
    ):
        a = np.asarray(Image.open(exact / entry["image"])).astype(float)
        b = np.asarray(Image.open(lossy / other["image"])).astype(float)
        assert measured["psnr_db"] == pytest.approx(10 * np.log10(255**2 / np.mean((a - b) ** 2)))
        assert 0 < measured["ssim"] < 1


def test_the_summary_says_that_it_is_lossy_and_by_how_much(runs):
    exact, _, out = runs
    assert "lossy          cache fbcache at 0.9, fp8 storage of the T5 encoder: images differ" in out
    assert "similarity     PSNR " in out and str(exact) in out
    assert "cache          fbcache computed " in out


def test_a_result_says_its_preset_and_what_of_it_acted(runs):
    exact, lossy, out = runs
    assert "preset         fastest: --fuse_qkv" in out
    found = result_of(lossy)
    preset = found["configuration"]["preset"]
    assert preset["name"] == "fastest" and preset["options"] == {"fuse_qkv": True}
    assert [one["kind"] for one in preset["evidence"]] == ["measured"]
    left_out = {name: one["reason"] for one in preset["left_out"] for name in one["options"]}
    assert left_out["use_fbcache"] == "the given options decide it" and "cpu" in left_out["compile_vae"]
    fused = found["effects"][0]["fused_qkv"]
    assert fused["linear_layers"] < fused["linear_layers_before"]
    assert "preset" not in lossy.name
    assert "preset" not in result_of(exact)["configuration"]


def test_a_cache_that_did_nothing_fails_the_run_unless_that_is_allowed(tmp_path):
    words = ["--use_fbcache", "--cache_threshold", "0"]
    done = run(tmp_path, *words)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mlenergy: error:")]
    assert "cache fbcache skipped no step at threshold 0;" in line
    assert "images/s" in done.stdout
    (folder,) = tmp_path.iterdir()
    assert result_of(folder)["completed"] == 2 and "skipped no step" in result_of(folder)["effects_failed"][0]
    allowed = run(tmp_path, *words, "--allow_no_effect")
    assert allowed.returncode == 0, allowed.stderr
    assert result_of(folder)["effects"][0]["cache"]["computed_share"] == 1
    assert result_of(folder)["effects_failed"] == []


def test_a_sweep_counts_a_run_without_effect_as_failed_unless_that_is_allowed(tmp_path):
    common = {"model_id": "tiny/flux", "dataset": "bundled", "height": 64, "width": 64, "inference_steps": 2}
    common |= {"engine": "diffusers", "device": "cpu", "use_fbcache": True, "cache_threshold": 0}

    def sweep(**options):
        spec = {"folder": str(tmp_path / "sweep"), "common": common, "list": [options], "retries": 1}
        (tmp_path / "sweep.yaml").write_text(json.dumps(spec))  # YAML, too
        command = [str(Path(sys.executable).with_name("mlenergy")), "sweep", str(tmp_path / "sweep.yaml")]
        code = forked.run(command, capture_output=True, check=False, timeout=300).returncode
        state = json.loads((tmp_path / "sweep" / "state.json").read_text())
        return code, list(state["runs"].values())[-1]

    code, entry = sweep(benchmark_iters=1)
    assert (code, entry["state"], entry["exit_code"], entry["attempts"]) == (1, "failed", 2, 1)
    assert "skipped no step" in entry["message"]
    kept = result_of(Path(entry["folder"]))
    code, entry = sweep(benchmark_iters=1, allow_no_effect=True)
    assert (code, entry["state"]) == (0, "complete")
    assert result_of(Path(entry["folder"]))["generation_time"] == kept["generation_time"]


def test_a_reference_that_does_not_fit_is_refused_before_the_model_loads(tmp_path, runs):
    done = run(tmp_path, "--workload.seed", "7", "--reference", str(runs[0]))
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mlenergy: error:")]
    assert "--reference" in line and "give the folder of an exact run that fits" in line
    assert "loading" not in done.stderr
