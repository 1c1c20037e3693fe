"""The study `models`: what runs on which captions, and what its report says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import forked
import pytest
from extractors import pictures, save_folder, save_run, small_inception

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.results.read import load_result
from mlenergy.diffusion.studies.command import main
from mlenergy.diffusion.studies.content import Chart, Gap, Measured, Pictures, Table
from mlenergy.diffusion.studies.models import DEFAULTS, ModelsOptions, after, report, sweeps
from mlenergy.diffusion.studies.outcome import Cell, Outcome, StudyRun
from mlenergy.diffusion.sweep.options import full_name

SDXL, PIXART = DEFAULTS[:2]
COUNT = 8
IMAGES = pictures(COUNT, 0)
TINY = ("tiny/sdxl", "tiny/pixart-alpha")


@pytest.fixture
def dataset(tmp_path):
    return save_folder(tmp_path / "data", IMAGES, [f"caption {number}" for number in range(COUNT)])


@pytest.fixture
def lora(tmp_path):
    """The files of a LoRA that the report reads."""
    folder = tmp_path / "icons"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": PIXART}))
    record = {"steps": 300, "images": 1200, "duration_s": 60.0, "energy_j": 5000.0}
    (folder / "training.json").write_text(json.dumps(record))
    return folder


def cell_of(folder, images, joules, seconds, *, lora=None, model):
    save_run(
        folder,
        images,
        spec=BY_ID[model],
        joules=[joules] * COUNT,
        seconds=[seconds, seconds * 1.01] * (COUNT // 2),
    )
    run = StudyRun(1, "label", {}, 1, "complete", load_result(folder / "results.json").record, None, folder)
    options = {"model_id": model, **({} if lora is None else {"lora": str(lora)})}
    return Cell("models", "label", {full_name(name): value for name, value in options.items()}, (run,))


@pytest.fixture
def outcome(tmp_path, lora):
    """SDXL makes other images than the dataset's; PixArt does too, but with the LoRA exactly those."""
    other = pictures(COUNT, 1, shift=40)
    cells = [
        cell_of(tmp_path / "a", other, 3000, 8.0, model=SDXL),
        cell_of(tmp_path / "b", pictures(COUNT, 2, shift=20), 1000, 4.0, model=PIXART),
        cell_of(tmp_path / "c", IMAGES, 1100, 4.1, model=PIXART, lora=lora),
    ]
    return Outcome(tmp_path, {"models": cells})


def table_of(made):
    return next(part for part in made.parts if isinstance(part, Table))


def test_the_distance_of_each_model_to_the_dataset_stands_beside_its_cost(dataset, outcome, lora, tmp_path):
    small_inception(tmp_path / "inception.pt")
    options = ModelsOptions(
        dataset=dataset,
        models=(SDXL, PIXART),
        lora=str(lora),
        num_samples=COUNT,
        inception=tmp_path / "inception.pt",
    )
    after(options, outcome)
    made = report(options, outcome)
    rows = table_of(made).rows
    assert [(row["model"], row["lora"]) for row in rows] == [(SDXL, "–"), (PIXART, "–"), (PIXART, "icons")]
    fids = [row["fid"].value for row in rows]
    assert fids[2] == pytest.approx(0, abs=1e-3) and fids[0] > fids[1] > 0.01
    kept = [json.loads((tmp_path / name / "results.json").read_text())["quality"]["fid"] for name in "abc"]
    assert fids == kept and all(isinstance(row["kid"], Measured) for row in rows)
    assert [row["energy_per_image_j"].value for row in rows] == pytest.approx([3000, 1000, 1100])
    assert [row["images_per_s"].value for row in rows] == pytest.approx([1 / 8.04, 1 / 4.02, 1 / 4.1205])
    assert rows[0]["parameters_millions"].value == pytest.approx(BY_ID[SDXL].parameters / 1e6, rel=0.1)
    assert [row["images"] for row in rows] == [COUNT] * 3 and {row["condition"] for row in rows} == {"text"}
    assert made.summary == [
        f"Fastest: {PIXART}, 4.02 s an image.",
        f"Least energy: {PIXART}, 1,000 J an image.",
        f"Closest to the dataset: {PIXART} + icons, {made.summary[2].split()[-2]} FID.",
        "The LoRA was trained in 300 steps on 1200 images: 60 s, 5,000 J.",
    ]
    charts = [part for part in made.parts if isinstance(part, Chart)]
    assert [len(chart.series) for chart in charts] == [3, 3]
    (images,) = [part for part in made.parts if isinstance(part, Pictures)]
    assert images.columns == ["dataset", SDXL, PIXART, f"{PIXART} + icons"]
    assert images.rows[1][0] == "caption 1" and images.rows[1][1][0].file == dataset / "001.png"
    _, tuned = next(part for part in made.parts if part.title == f"Against {SDXL}").rows
    assert tuned["model"] == f"{PIXART} + icons"
    assert tuned["speed_winner"].startswith(f"{PIXART} (") and tuned["energy_winner"].startswith(
        f"{PIXART} (2.7"
    )
    # Of what was added to the results after the study had loaded them.
    assert tuned["quality_winner"] == f"{PIXART} (FID lower by {number(fids[0])})"


def test_without_an_extractor_or_with_one_that_fails_there_is_a_reason(dataset, outcome, lora, tmp_path):
    options = ModelsOptions(dataset=dataset, models=(SDXL, PIXART), lora=str(lora), num_samples=COUNT)
    after(options, outcome)
    rows = table_of(report(options, outcome)).rows
    assert all("give --inception" in row["fid"].reason for row in rows)
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    options = ModelsOptions(
        dataset=dataset,
        models=(SDXL, PIXART),
        lora=str(lora),
        num_samples=COUNT,
        inception=tmp_path / "broken.pt",
    )
    after(options, outcome)
    rows = table_of(report(options, outcome)).rows
    assert all(isinstance(row["fid"], Gap) and "broken.pt" in row["fid"].reason for row in rows)


def test_every_model_gets_the_same_captions_in_their_order(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", str(dataset), "--models", *TINY, "--num_samples", "7", "--batch_size", "2"]
    words += ["--lora", "org/adapter", "--lora_model", TINY[1]]
    assert main(["run", "models", *words, "--print", "--set", "device=cpu"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "torchrun" in line]
    assert len(lines) == 3 and sum("--workload.lora org/adapter" in line for line in lines) == 1
    for line in lines:
        assert f"--workload.dataset {dataset.resolve()}/metadata.jsonl" in line
        assert "--workload.prompt_order file" in line and "--workload.prompt_column text" in line
        assert "--benchmark_iters 4" in line and "--workload.batch_size 2" in line


def test_a_class_conditional_model_is_marked_and_gets_no_captions(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", str(dataset), "--models", "tiny/sdxl", "tiny/var", "--num_samples", "4"]
    assert main(["run", "models", *words, "--print", "--set", "device=cpu"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "torchrun" in line]
    assert [str(dataset) in line for line in lines] == [True, False]
    run = StudyRun(1, "x", {}, 1, "failed", None, "out of memory", None)
    cell = Cell("models", "label", {"workload.model_id": "tiny/var"}, (run,))
    options = ModelsOptions(dataset=dataset, models=("tiny/var",), num_samples=4)
    (row,) = table_of(report(options, Outcome(tmp_path, {"models": [cell]}))).rows
    assert row["condition"] == "class" and row["fid"] == row["size"] == Gap("out of memory")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_samples": 9}, "has 8 captions, fewer than the 9 images"),
        ({"num_samples": 7, "batch_size": 3}, "fewer than the 9 images of --num_samples 7 in batches of 3"),
        ({"skip": ("vae",)}, "--skip vae names none of tiny/sdxl, tiny/pixart-alpha"),
        ({"skip": ("sdxl", "pixart")}, "--skip leaves no model"),
        ({"lora": "org/adapter"}, "--lora org/adapter names no model; choose one by --lora_model: tiny/sdxl"),
        ({"lora": "x", "lora_model": PIXART}, f"is for {PIXART}, which is not among the models"),
    ],
)
def test_mistakes_are_one_line(dataset, options, line):
    with pytest.raises(UserError) as error:
        next(sweeps(ModelsOptions(**{"dataset": dataset, "models": TINY, "num_samples": COUNT, **options})))
    assert line in str(error.value) and "\n" not in str(error.value)


def test_models_are_left_out_by_family_and_the_defaults_are_listed(dataset):
    sweep = next(sweeps(ModelsOptions(dataset=dataset, num_samples=COUNT, skip=("sdxl",))))
    models = [run["model_id"] for run in sweep.content["list"]]
    assert models == [model for model in DEFAULTS[1:] if model in BY_ID]


@pytest.mark.full
def test_the_study_runs_on_tiny_models_with_a_lora_that_was_trained_here(dataset, tmp_path):
    mlenergy = [sys.executable, "-m", "mlenergy.diffusion"]
    sizes = ["--height", "64", "--width", "64", "--device", "cpu"]
    train = ["finetune", "--model_id", TINY[1], "--dataset", str(dataset), "--out", "lora", "--steps", "3"]
    study = ["study", "run", "models", "--folder", "m", "--dataset", str(dataset), "--models", *TINY]
    study += ["--lora", "lora", "--num_samples", "4", "--batch_size", "2"]
    small = ("device=cpu", "height=64", "width=64", "inference_steps=2")
    study += [word for option in small for word in ("--set", option)]
    for words in ([*train, *sizes], study):
        done = forked.run([*mlenergy, *words], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads((tmp_path / "m" / "report.json").read_text())
    rows = made["tables"]["models"]["rows"]
    assert [row["lora"] for row in rows] == ["–", "–", "lora"] and all(row["images"] == 4 for row in rows)
    assert all(row["time_per_image_s"] > 0 for row in rows)
    assert all("energy_per_image_j" in row["reasons"] and row["fid"] is None for row in rows)
    assert any("The LoRA was trained in 3 steps" in line for line in made["summary"])
    plain, tuned = (
        sorted(Path(image).read_bytes() for image in tmp_path.glob(f"m/results/*{name}*/image_outputs/*.png"))
        for name in ("pixart-alpha+batch", "lora")
    )
    assert plain != tuned
