"""Measured stages split by kind of work: shares that sum to the whole, the largest one's levers, refusals."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from result_folders import result, save

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.formula import Terms
from mlenergy.diffusion.forecast.levers import levers_of
from mlenergy.diffusion.forecast.predict import forecast_of, read_fitted
from mlenergy.diffusion.forecast.roofline import KINDS, WAITING, roofline_of, split
from mlenergy.diffusion.models.listed import BY_ID

SCRIPT = Path(__file__).parents[2] / "scripts" / "roofline.py"
H100 = "NVIDIA H100 80GB HBM3"
ONE = Parallelism()
TERMS = Terms(matmul_s=2.0, attention_s=1.0, elementwise_s=0.4, copied_s=0.1, link_s=0.25, host_s=0.0)


def of_h100(seconds=(14.6, 14.8), **changes):
    return result(seconds, **{"device_name": H100, "parallel": ONE, "batch_size": 1, "steps": 50, **changes})


def with_stages(content, **seconds):
    """The result with other means of its stages."""
    stages = content["stages"]
    return content | {
        "stages": stages | {f"{name}_s": stages[f"{name}_s"] | {"mean": s} for name, s in seconds.items()}
    }


def test_what_no_term_accounts_for_is_waiting():
    found = split(10.0, TERMS, calls=2)
    expected = {
        "matmul": 4.0,
        "attention": 2.0,
        "communication": 0.5,
        "memory": 1.0,
        "launches": 0.0,
        WAITING: 2.5,
    }
    assert found.kinds_s == pytest.approx(expected)
    assert found.shares["matmul"] == 0.4 and found.shares[WAITING] == pytest.approx(0.25)


def test_a_host_that_is_slower_than_the_gpu_shows_as_launches():
    found = split(8.0, replace(TERMS, host_s=7.75))
    assert found.kinds_s["launches"] == pytest.approx(4.0, rel=0.02), "7.75 s less the GPU's 3.75 s"
    assert split(8.0, TERMS).kinds_s["launches"] == pytest.approx(0, abs=1e-9)


def test_terms_longer_than_the_stage_leave_out_what_is_least_sure():
    found = split(3.1, TERMS)
    assert found.kinds_s == pytest.approx(
        {"matmul": 2, "attention": 1, "communication": 0.1, "memory": 0, "launches": 0, WAITING: 0}
    )
    assert found.terms_s["memory"] == 0.5


def test_a_run_as_fast_as_its_forecast_waits_for_nothing_in_its_stages(plan_of):
    plan = plan_of("black-forest-labs/FLUX.1-dev", inference_steps=50)
    parts = forecast_of(plan, "H100").parts_s
    found = roofline_of(
        with_stages(of_h100(max_sequence_length=plan.max_sequence_length), **parts, other=0.25)
    )
    for name, seconds in parts.items():
        assert found.stages[name].seconds == seconds
        assert found.stages[name].kinds_s[WAITING] == pytest.approx(0, rel=0, abs=1e-9)
    assert found.stages["other"].kinds_s[WAITING] == 0.25 and found.notes == ()
    # 57 blocks of 12 matrices of 3072 x 3072 for each of 4608 tokens, 50 times, at the H100's fitted share of
    # 989.4 TFLOP/s; small sides and the model's own factor are within a tenth.
    share = read_fitted().time["H100"]["matmul_share"]
    assert found.matmul_tflops == pytest.approx(share * 989.4)
    floor_s = 50 * 2 * 4608 * 57 * 12 * 3072**2 / (found.matmul_tflops * 1e12)
    assert found.stages["denoise"].kinds_s["matmul"] == pytest.approx(floor_s, rel=0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"parallel": Parallelism(ulysses=2)},
        {"parallel": Parallelism(ring=2), "batch_size": 2},
        {"optimizations": Optimizations(compile_mode="regional", fuse_qkv=True)},
        {"spec": BY_ID["stabilityai/stable-diffusion-xl-base-1.0"], "steps": 30},
        {"device_name": "NVIDIA H200"},
    ],
    ids=["eager", "ulysses", "ring", "compiled", "sdxl", "h200"],
)
def test_shares_sum_to_the_whole(changes):
    content = of_h100(**changes)
    found = roofline_of(content)
    whole = found.whole
    assert whole.seconds == pytest.approx(content["statistics"]["duration_s"]["mean"])
    for part in (*found.stages.values(), whole):
        assert sum(part.shares.values()) == pytest.approx(1)
        assert set(part.shares) == {*KINDS, WAITING} and all(share >= 0 for share in part.shares.values())
    assert (found.stages["denoise"].kinds_s["communication"] > 0) == (found.gpus == 2)


def test_notes_say_where_a_share_is_less_sure():
    changes = {
        "device_name": "NVIDIA H200",
        "spec": BY_ID["stabilityai/stable-diffusion-xl-base-1.0"],
        "optimizations": Optimizations(compile_mode="whole"),
    }
    notes = "\n".join(roofline_of(of_h100((1.0, 1.0), **changes)).notes)
    for words in (
        "scaled to it by its data sheet",
        "no run of stabilityai",
        "upper bounds",
        "terms of denoise are",
    ):
        assert words in notes
    assert roofline_of(of_h100()).notes == ()


def test_the_largest_share_names_the_lever():
    seconds = {
        "denoise": {"matmul": 3.0, "launches": 4.0, "memory": 0.1},
        "vae_decode": {"matmul": 2.0},
    }
    first, second, third = levers_of(seconds, Optimizations(), 1)
    assert (first.stage, first.kind, first.share) == ("denoise", "launches", pytest.approx(4 / 9.1))
    assert first.options[0] == "--use_torch_compile"
    assert (second.kind, third.stage) == ("matmul", "vae_decode") and "--vae_channels_last" in third.options
    used = Optimizations(compile_mode="whole", inductor_mode="reduce-overhead", vae_channels_last=True)
    first, _, third = levers_of(seconds, used, 1)
    assert first.options == ("a larger --workload.batch_size",)
    assert "--vae_channels_last" not in third.options and "--use_parallel_vae" not in third.options
    assert "--use_parallel_vae" in levers_of(seconds, used, 2)[2].options


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: result(on_cpu=True), "it ran on cpu, and the terms are those of NVIDIA GPUs"),
        (lambda: of_h100(device_name="NVIDIA T1000"), "no data sheet of a GPU 'NVIDIA T1000' is known"),
        (lambda: of_h100(optimizations=Optimizations(cache="fbcache")), "it ran with --cache_method"),
        (lambda: of_h100(parallel=Parallelism(pipefusion=2)), "PipeFusion parallelism"),
        (lambda: of_h100(dtype="float32"), "in float32"),
        (
            lambda: (
                (c := of_h100()) | {"stages": c["stages"] | {"denoise_s": None, "reason": "no denoiser ran"}}
            ),
            "its stages are not known: no denoiser ran",
        ),
    ],
    ids=["cpu", "gpu", "cache", "pipefusion", "dtype", "stages"],
)
def test_what_cannot_be_split_is_refused(content, words):
    with pytest.raises(UserError, match=words):
        roofline_of(content())


@pytest.fixture
def roofline(capsys):
    spec = importlib.util.spec_from_file_location("roofline_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(*words):
        return script.main(list(map(str, words))), capsys.readouterr()

    return run


def test_the_script_prints_a_table_and_json(tmp_path, roofline):
    save(tmp_path / "a", of_h100())
    code, shown = roofline(tmp_path)
    assert code == 0 and not shown.err
    assert "black-forest-labs/FLUX.1-dev on 1 x H100, matrix work at " in shown.out
    (paying,) = (line for line in shown.out.splitlines() if line.startswith("pays most: "))
    code, shown = roofline("--json", tmp_path / "a" / "results.json")
    (found,) = json.loads(shown.out)
    assert set(found["stages"]) == {"text_encode", "denoise", "vae_decode", "other", "whole"}
    shares = {
        (stage, kind): seconds
        for stage, part in found["stages"].items()
        if stage != "whole"
        for kind, seconds in part["kinds_s"].items()
    }
    stage, kind = max(shares, key=shares.__getitem__)
    assert paying.startswith(f"pays most: {kind} of {stage}, ")
    assert sum(found["stages"]["whole"]["shares"].values()) == pytest.approx(1)


def test_the_script_keeps_on_after_a_result_that_it_cannot_split(tmp_path, roofline):
    save(tmp_path / "a", result(on_cpu=True))
    save(tmp_path / "b", of_h100())
    code, shown = roofline(tmp_path)
    assert code == 2 and "on 1 x H100" in shown.out
    assert shown.err.count("\n") == 1 and "it ran on cpu" in shown.err
    code, shown = roofline(tmp_path / "none")
    assert code == 2 and shown.err.startswith("roofline: there is no ") and shown.err.count("\n") == 1
