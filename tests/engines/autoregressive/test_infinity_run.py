"""tiny/infinity through the launcher: two ranks give the images of one, and the verbs read it."""

from __future__ import annotations

import json
import subprocess
import sys

import forked
import numpy as np
import pytest
from PIL import Image

from mlenergy.diffusion.cli import main

RUN = [sys.executable, "-m", "mlenergy.diffusion", "run"]


def measure(base, *options):
    workload = ["workload:t2i", "--workload.model_id", "tiny/infinity", "--workload.batch_size", "4"]
    command = [*RUN, "--device", "cpu", "--benchmark_iters", "2", *options, *workload]
    command += ["--workload.base_dir", str(base), "--workload.negative_prompt", "a grey wall"]
    done = forked.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder,) = [path for path in base.iterdir() if path.is_dir()]
    return done.stdout, folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("infinity")


@pytest.fixture(scope="module")
def alone(base):
    return measure(base / "alone")


@pytest.fixture(scope="module")
def two_ranks(base):
    return measure(base / "two", "--data_parallel_degree", "2")


def pixels(folder, index):
    result = json.loads((folder / "results.json").read_text())
    with Image.open(folder / result["generation_results"][index]["image"]) as image:
        return np.asarray(image, dtype=np.int16)


def test_text_scales_and_decoder_are_stages_and_the_text_conditions(alone):
    out, folder = alone
    result = json.loads((folder / "results.json").read_text())
    assert "conditioning" not in result["configuration"]["model"]  # a class does not steer it
    for window in result["iterations"]:
        stages = window["stages"]
        assert len(stages["denoise_step_s"]) == 7
        assert min(stages["text_encode_s"], stages["vae_decode_s"], *stages["denoise_step_s"]) > 0
        # Scales of 521 tokens of 32 features in all, for four images and their unconditional halves.
        assert window["denoiser"] == [
            {"calls": 7, "rows": 56, "elements": 8 * 521 * 32, "text_tokens": 56 * 64}
        ]
    assert result["executed_failed"] == []
    assert result["effects"][0]["attention"]["kernels"]
    assert "class-conditional" not in out and "7 scales" in out


def test_two_ranks_give_the_images_of_one(alone, two_ranks):
    for index in range(8):
        # Bytes: one step is 1/255, far above what rounding may change.
        assert np.abs(pixels(alone[1], index) - pixels(two_ranks[1], index)).max() <= 1
    assert np.abs(pixels(alone[1], 0) - pixels(alone[1], 1)).max() > 1


@pytest.fixture
def call(capfd, monkeypatch):
    """What `mlenergy` prints."""

    def output(*words):
        monkeypatch.setattr(sys, "argv", ["mlenergy", *words])
        capfd.readouterr()
        code = main()
        out, err = capfd.readouterr()
        assert code in (0, None), err
        return out

    return output


def test_the_verbs_read_it(base, alone, two_ranks, call):
    assert "tiny/infinity" in call("show", str(base))
    assert "tiny/infinity" in call("compare", str(alone[1]), str(two_ranks[1]))


def test_the_plan_of_the_2b_has_its_tokens_and_arithmetic(call):
    plan = call(
        "plan", "--device", "cpu", "--workload.model_id", "infinity-2b", "--workload.weights", "random"
    )
    assert "10521 " in plan and "13 scales" in plan and "127." in plan
    assert "class-conditional" not in plan
    models = json.loads(call("models", "--json"))
    conditions = {one["model_id"]: one["condition"] for one in models}
    assert conditions["infinity-2b"] == conditions["infinity-8b"] == conditions["tiny/infinity"] == "text"
