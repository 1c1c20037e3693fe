"""`mlenergy study` as a user meets it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mlenergy.diffusion.config.args import read_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.predict import forecast_of
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.studies.command import main
from mlenergy.diffusion.studies.registry import STUDIES

TINY = ["--models", "tiny/sdxl", "--sizes", "64", "128", "--steps", "2", "4"]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`mlenergy study` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: main(list(words))


def test_every_study_is_listed_with_what_it_shows(study, capsys):
    assert study("list") == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in STUDIES)
    assert study("list", "--json") == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == list(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_help_and_a_summary(study, capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        study("run", name, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: mlenergy study run {name} ") and "None" not in text
    assert max(map(len, text.splitlines())) <= 120
    assert STUDIES[name].summary.endswith(".") and STUDIES[name].summary in text


def test_print_shows_every_run_and_writes_nothing(study, capsys):
    assert study("run", "scaling", *TINY, "--print", "--set", "device=cpu") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "torchrun" in line]
    assert len(lines) == 4
    assert all("--device cpu" in line and "--workload.dataset bundled" in line for line in lines)
    assert [line.rpartition("--workload.")[2] for line in lines] == [
        "width 64",
        "width 128",
        "inference_steps 2",
        "inference_steps 4",
    ]
    assert not list(Path().rglob("*"))


def forecast_lines(text):
    return [line for line in text.splitlines() if line.startswith("# ") and "forecast" in line]


def test_print_adds_up_the_forecasts_of_all_sweeps(study, capsys):
    words = ["--models", "black-forest-labs/FLUX.1-dev", "--sizes", "512", "1024", "--steps", "10", "20"]
    common = ["--set", "device=cpu", "--set", "dtype=bfloat16", "--iters", "1", "--print", "--gpu", "H100"]
    assert study("run", "scaling", *words, *common) == 0
    [line] = forecast_lines(capsys.readouterr().out)
    model = resolve_model("black-forest-labs/FLUX.1-dev")
    total_s = 0.0
    for size, steps in (("512", "28"), ("1024", "28"), ("1024", "10"), ("1024", "20")):
        options = {"height": size, "width": size, "inference_steps": steps, "model_id": model.model_id}
        argv = [word for name, value in options.items() for word in (f"--workload.{name}", value)]
        plan = make_plan(read_args(["workload:t2i", *argv]), model, 1, "cuda", "NVIDIA H100 80GB HBM3")
        total_s += 2 * forecast_of(plan, "H100").duration_s.value  # one to warm up, one measured
    assert line.startswith(f"# forecast for H100: {number(total_s)} s (")
    assert f"of 4 runs one after another, {number(total_s / 3600)} GPU hours, " in line


def test_the_leaderboard_is_forecast_as_a_whole(study, capsys):
    words = ["--models", "black-forest-labs/FLUX.1-dev", "--batches", "2", "--max_gpus", "2"]
    assert study("run", "mlenergy-v3", *words, "--print", "--gpu", "H100") == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "torchrun" in line]
    assert len(lines) == 3 and all("--workload.weights random" in line for line in lines)
    [line] = forecast_lines(out)
    # Five iterations of what was published with 22.89, 14.82 and 15.01 s, the last two on two GPUs.
    hours = float(re.search(r"([\d.]+) GPU hours \(with 2 GPUs all busy ", line)[1])
    assert hours == pytest.approx(5 * (22.89 + 2 * 14.82 + 2 * 15.01) / 3600, rel=0.1)


def test_without_a_gpu_the_print_says_how_to_name_one(study, capsys):
    assert study("run", "scaling", *TINY, "--print", "--set", "device=cpu") == 0
    [line] = forecast_lines(capsys.readouterr().out)
    assert line == "# no forecast: there is no GPU here; name one, such as --gpu H100"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "scaling", "--gpu", "H100"], "--gpu is the GPU of a forecast, for --print"),
        (["run", "scaling", "--gpu", "H1000", "--print"], "did you mean H100?"),
        (["run", "mlenergy-v3", "--set", "inference_steps=4"], "the study mlenergy-v3 gives it values"),
        (["run", "scailing"], "there is no study 'scailing'; did you mean scaling?"),
        (["run"], "name a study: mlenergy study run"),
        (["run", "--quick", "scaling"], "the study's name comes before --quick"),
        (["rum"], "there is no mlenergy study rum; did you mean run?"),
        (["run", "scaling", "--size", "64"], "there is no option --size; did you mean --sizes?"),
        (["run", "scaling", "--set", "steps"], "--set steps has no value; write --set steps=VALUE"),
        (["run", "scaling", "--set", "hight=2"], "there is no option 'hight'; did you mean height?"),
        (
            ["run", "scaling", "--set", "height=64"],
            "--set workload.height: the study scaling gives it values",
        ),
        (["run", "scaling", "--set", "benchmark_iters=0"], "benchmark_iters 0 is too small; use 1 or more"),
        (["run", "scaling", "--set", "base_dir=x"], "a study names its folders itself; use --folder"),
        (["run", "scaling", "--sizes", "64", "--steps", "4"], "an exponent needs two or more"),
        (["report", "scaling"], "there is no study in run/studies/scaling; name its folder, or run it"),
        (["report", "scaling", "a", "b"], "a report is on one study, not 2"),
    ],
)
def test_a_mistake_is_one_line(study, words, line):
    with pytest.raises(UserError) as error:
        study(*words)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_study_of_which_no_run_can_work_is_refused(study):
    with pytest.raises(UserError, match=r"none of 4 runs can work; the first one: .*65"):
        study("run", "scaling", "--models", "tiny/sdxl", "--sizes", "65", "67", "--steps", "2", "4",
              "--at_size", "65")  # fmt: skip


def test_a_folder_of_another_study_is_refused(study, tmp_path):
    (tmp_path / "study.json").write_text(json.dumps({"study": "other", "argv": [], "folder": "."}))
    with pytest.raises(UserError, match="holds the study other; use mlenergy study report other"):
        study("report", "scaling", str(tmp_path))
