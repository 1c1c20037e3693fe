"""tiny/var through the launcher: two ranks give the images of one, and every verb says what it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import forked
import jsonschema
import numpy as np
import pytest
from PIL import Image

import mlenergy.diffusion.results.build as build
from mlenergy.diffusion.cli import main
from mlenergy.diffusion.results.quality import run_images

RUN = [sys.executable, "-m", "mlenergy.diffusion", "run"]
SCHEMA = Path(build.__file__).parents[1] / "schema" / "results-v1.json"
CLASSES = ["207", "88", "5", "999"]


def measure(base, *options):
    workload = ["workload:t2i", "--workload.model_id", "tiny/var", "--workload.batch_size", "4"]
    words = ["--device", "cpu", "--benchmark_iters", "2", *options, *workload]
    command = [*RUN, *words, "--workload.base_dir", str(base), "--workload.class_ids", *CLASSES]
    done = forked.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder,) = [path for path in base.iterdir() if path.is_dir()]
    return done.stdout, folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("var")


@pytest.fixture(scope="module")
def alone(base):
    return measure(base / "alone")


@pytest.fixture(scope="module")
def two_ranks(base):
    return measure(base / "two", "--data_parallel_degree", "2")


def test_no_text_is_held_against_the_images(alone):
    folder = alone[1]
    found = run_images(folder, json.loads((folder / "results.json").read_text()))
    assert len(found) == 8 and {image.text for image in found.images} == {None}


def pixels(folder, index):
    result = json.loads((folder / "results.json").read_text())
    with Image.open(folder / result["generation_results"][index]["image"]) as image:
        return np.asarray(image, dtype=np.int16)


def test_a_result_has_scales_classes_and_arithmetic_and_follows_its_schema(alone):
    out, folder = alone
    result = json.loads((folder / "results.json").read_text())
    jsonschema.validate(result, json.loads(SCHEMA.read_text()))
    made = result["generation_results"]
    assert [image["class_id"] for image in made] == [int(one) for one in CLASSES * 2]
    assert made[0]["prompt"] == "class 207" and made[1]["seed"] == 43
    assert result["configuration"]["model"]["conditioning"] == "class"
    assert result["provenance"]["class_ids"] == [int(one) for one in CLASSES]
    for window in result["iterations"]:
        stages = window["stages"]
        assert len(stages["denoise_step_s"]) == 4 and stages["text_encode_s"] > 0
        assert sum(stages["denoise_step_s"]) == pytest.approx(stages["denoise_s"])
        assert stages["vae_decode_s"] > 0
        # Scales of 1, 4, 9 and 16 tokens of 64 features, for four images and their unconditional halves.
        (work,) = window["denoiser"]
        assert (work["calls"], work["rows"], work["elements"]) == (4, 32, 8 * 30 * 64)
    assert result["executed_failed"] == [] and result["executed"]["denoiser_calls_planned"] == 4
    assert result["efficiency"]["tflops_per_image"] == pytest.approx(0.00076207, rel=1e-3)
    assert result["effects"][0]["attention"]["kernels"]
    assert "tiny/var (VAR, class-conditional, random weights)" in out
    assert "4 scales" in out and "class embedding" in out and "denoising" not in out


def test_two_ranks_give_the_images_of_one(alone, two_ranks):
    for index in range(8):
        # Bytes: one step is 1/255, far above what rounding may change.
        assert np.abs(pixels(alone[1], index) - pixels(two_ranks[1], index)).max() <= 1
    assert np.abs(pixels(alone[1], 0) - pixels(alone[1], 1)).max() > 1
    result = json.loads((two_ranks[1] / "results.json").read_text())
    assert [rank["rows"] for rank in result["iterations"][0]["denoiser"]] == [16, 16]


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


def test_every_verb_reads_it_and_says_class_conditional(base, alone, two_ranks, call, tmp_path):
    folders = [str(alone[1]), str(two_ranks[1])]
    assert "tiny/var (class-conditional)" in call("show", str(base))
    assert "tiny/var" in call("compare", *folders)
    page = tmp_path / "report.html"
    call("report", str(base), "--out", str(page))
    assert "class-conditional" in page.read_text()
    table = tmp_path / "table.csv"
    call("export", str(base), "--format", "csv", "--out", str(table))
    assert "tiny/var" in table.read_text()


def test_the_plan_and_the_list_of_models_say_it_too(call):
    plan = call("plan", "--device", "cpu", "--workload.model_id", "var-d16")
    assert "class-conditional" in plan and "10 scales" in plan and "no prompt steers them" in plan
    assert "680 tokens in 10 scales" in plan and "0.06008" in plan
    listed = json.loads(call("models", "--json"))
    conditions = {one["model_id"]: one["condition"] for one in listed}
    assert (conditions["var-d36"], conditions["tiny/flux"]) == ("class", "text")
