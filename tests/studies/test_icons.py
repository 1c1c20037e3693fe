"""The study `icons`: run, continued, reported again elsewhere, and interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest

from mlenergy.diffusion.config.args import read_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.studies.command import main
from mlenergy.diffusion.studies.files import report_json
from mlenergy.diffusion.studies.icons import IconsOptions, report, sweeps
from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.spec import spec_of

from .conftest import gpu_result

MLENERGY = str(Path(sys.executable).with_name("mlenergy"))
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1"}
TINY = ["run", "icons", "--device", "cpu", "--size", "64", "--steps", "1"]
PROMPTS = ["bank transfer icon", "minimal fintech payment icon"]
FILES = ["tiny-sd1_5/bank_transfer_icon.png", "tiny-sd1_5/minimal_fintech_payment_icon.png"]


def study(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [MLENERGY, "study", *words]
    return forked.run(command, cwd=folder, capture_output=True, text=True, env=ENVIRON, timeout=300)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a quick study, and what it printed."""
    folder = tmp_path_factory.mktemp("icons")
    done = study(folder, *TINY, "--quick", "--models", "tiny/sd1.5", "tiny/sdxl")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_quick_makes_two_images_of_the_first_model_with_their_times(ran):
    folder, text = ran
    study_folder = folder / "run" / "studies" / "icons"
    [file] = study_folder.glob("results/*/results.json")
    result = json.loads(file.read_text())
    made = json.loads((study_folder / "report.json").read_text())
    rows = made["tables"]["images"]["rows"]
    assert [row["prompt"] for row in rows] == PROMPTS and [row["file"] for row in rows] == FILES
    assert [row["time_s"] for row in rows] == [image["time_s"] for image in result["generation_results"]]
    assert all(row["energy_j"] is None and "no GPU" in row["reasons"]["energy_j"] for row in rows)
    for image, name in zip(result["generation_results"], FILES, strict=True):
        assert (study_folder / name).read_bytes() == (file.parent / image["image"]).read_bytes()
    prefix = "flat design icon, simple shapes, solid colors, white background,"
    assert [image["prompt"] for image in result["generation_results"]] == [f"{prefix} {p}" for p in PROMPTS]
    plan = result["configuration"]
    assert plan["knobs"]["attention_slicing"] is True and plan["guidance_scale"] == 7.5
    assert "2 of 2 images" in text and FILES[0] in text
    page = (study_folder / "report.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == 2 and "<script" not in page


def test_the_same_command_measures_nothing_again(ran):
    folder, _ = ran
    [file] = folder.glob("run/studies/icons/results/*/results.json")
    before = file.stat().st_mtime_ns
    again = study(folder, *TINY, "--quick", "--models", "tiny/sd1.5", "tiny/sdxl")
    assert again.returncode == 0 and "started" not in again.stdout
    assert file.stat().st_mtime_ns == before


def test_a_moved_study_is_reported_again(ran, tmp_path, monkeypatch, capsys):
    folder, _ = ran
    shutil.copytree(folder / "run" / "studies" / "icons", tmp_path / "moved")
    earlier = json.loads((tmp_path / "moved" / "report.json").read_text())
    (tmp_path / "moved" / "report.json").unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["report", "icons", "moved", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["tables"] == earlier["tables"] and again["command"] == earlier["command"]
    assert again["complete"] == 1


def test_models_and_prompts_are_the_published_ones():
    [sweep] = sweeps(IconsOptions())
    assert sweep.content["grid"]["model_id"] == [
        "milyiyo/flat-design-icons",
        "nicky007/stable-diffusion-logo-fine-tuned",
        "proximasanfinetuning/fantassified-icons-v2",
    ]
    common = sweep.content["common"]
    assert (common["height"], common["width"], common["inference_steps"]) == (512, 512, 25)
    assert (common["guidance_scale"], common["benchmark_iters"], common["device"]) == (7.5, 5, "auto")


def test_the_study_can_run_on_apples_gpu():
    [sweep] = sweeps(IconsOptions(models=("tiny/sd1.5",)))
    [run] = expand(spec_of(sweep.content, "icons", "study icons"))
    plan = make_plan(read_args(run.argv), resolve_model("tiny/sd1.5"), None, "mps", "Apple M3")
    assert (plan.device, plan.engine, plan.optimizations.attention_slicing) == ("mps", "diffusers", True)


def test_other_prompts_are_read_from_another_file():
    [usual], [other] = sweeps(IconsOptions()), sweeps(IconsOptions(prompts=("a bell",)))
    assert usual.content["common"]["dataset"] != other.content["common"]["dataset"]


def test_two_prompts_of_one_file_name_are_refused():
    with pytest.raises(UserError, match=r"'A bell' and 'a  *bell!' would both be a_bell.png"):
        next(sweeps(IconsOptions(prompts=("A bell", "a bell!"))))


def test_a_model_that_failed_is_a_gap(make_cell, make_outcome):
    options = IconsOptions(models=("a/one", "b/two"), prompts=("x", "y"))
    good = make_cell(gpu_result(1.0, batch_size=1), sweep="icons", model_id="a/one")
    bad = make_cell("b/two has only pickles; --allow_pickle", sweep="icons", model_id="b/two")
    made = report(options, make_outcome(good, bad))
    told = report_json(made)
    assert "2 of 4 images" in told["summary"][0]
    rows = told["tables"]["images"]["rows"]
    assert [row["time_s"] is None for row in rows] == [False, False, True, True]
    assert rows[2]["reasons"]["time_s"] == "b/two has only pickles; --allow_pickle"


@pytest.mark.full
def test_an_interrupt_keeps_the_images_that_are_made_and_the_next_call_makes_the_rest(tmp_path):
    prompts = [f"icon number {n}" for n in range(80)]
    words = [MLENERGY, "study", *TINY, "--models", "tiny/sd1.5", "--prompts", *prompts]
    with forked.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=ENVIRON) as process:
        text = ""
        while "measured 3/" not in text:
            assert process.poll() is None
            time.sleep(0.05)
            logs = tmp_path.glob("run/studies/icons/sweeps/icons/logs/*.log")
            text = "".join(log.read_text() for log in logs)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=120)
    assert process.returncode == 130, text
    folder = tmp_path / "run" / "studies" / "icons"
    rows = json.loads((folder / "report.json").read_text())["tables"]["images"]["rows"]
    made = [row for row in rows if row["time_s"] is not None]
    assert 3 <= len(made) < 80
    assert all((folder / row["file"]).is_file() for row in made if row["file"] is not None)
    assert any(row["file"] is not None for row in made)
    lacking = next(row for row in rows if row["time_s"] is None)
    assert lacking["reasons"]["time_s"] == "stopped before it ended"
    [place] = folder.glob("results/*")
    partial = json.loads((place / "results_interrupted.json").read_text())
    names = [image["image"] for image in partial["generation_results"]]
    assert all((place / name).is_file() for name in names if name is not None)
    again = study(tmp_path, *TINY, "--models", "tiny/sd1.5", "--prompts", *prompts)
    assert again.returncode == 0, again.stdout
    assert "80 of 80 images" in again.stdout
