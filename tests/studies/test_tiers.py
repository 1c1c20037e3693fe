"""The study `tiers`: what is stacked, what is asked for, and the table of what came of it."""

import json
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
from study_cells import measured, refused

from mlenergy.diffusion.studies.command import main
from mlenergy.diffusion.studies.content import Chart, Gap, Measured, Pictures, Table, Text
from mlenergy.diffusion.studies.files import report_json
from mlenergy.diffusion.studies.outcome import Outcome
from mlenergy.diffusion.studies.techniques import DISTILLED, stacks, techniques
from mlenergy.diffusion.studies.tiers import TIERS, TiersOptions, after, report, sweeps
from mlenergy.diffusion.sweep.options import full_name

MODEL, TURBO = "stabilityai/stable-diffusion-xl-base-1.0", "stabilityai/sdxl-turbo"
EVERY = techniques(50, TURBO)
NAMES = [one.name for one in EVERY]


def test_every_tier_has_what_the_study_promises():
    by_tier = {tier: " ".join(one.name for one in EVERY if one.tier == tier) for tier in (1, 2, 3)}
    assert all(word in by_tier[1] for word in ("DDIM, 25 steps", "DPM-Solver++, 20 steps", "float16"))
    assert all(word in by_tier[2] for word in ("offload", "memory-efficient attention", "torch.compile"))
    assert all(word in by_tier[3] for word in ("int8", "UniPC", "Euler", f"distilled model {TURBO}"))
    for one in EVERY:
        assert [full_name(name) for name in one.options]  # raises for an option that does not exist
    assert not any(model == other for model, other in DISTILLED.items())


def test_stacks_hold_what_runs_and_the_first_of_two_that_exclude_each_other():
    found = [(one.tiers, [part.name for part in one.parts]) for one in stacks(EVERY, NAMES)]
    first = ["DPM-Solver++, 20 steps", "float16"]
    second = ["memory-efficient attention", "torch.compile"]
    assert found == [
        (1, first),
        (2, [*first, *second]),
        (2, [*first, second[0], "offload of components"]),
        (3, [*first, *second, "int8 weights"]),
        (3, [*first, *second, "int8 weights", f"distilled model {TURBO}"]),
    ]
    options = stacks(EVERY, NAMES)[-1].options
    assert options["model_id"] == TURBO and options["quantization"] == "int8-weight-only"
    assert options["scheduler"] is options["inference_steps"] is None  # the distilled model's own


def test_what_did_not_run_is_in_no_stack():
    able = [n for n in NAMES if n not in ("float16", "memory-efficient attention", "offload of components")]
    found = [[part.name for part in one.parts] for one in stacks(EVERY, able)]
    assert found[0] == ["DPM-Solver++, 20 steps", "flash attention", "torch.compile"]
    assert not any("float16" in names or "offload of components" in names for names in found)
    assert stacks(EVERY, ["float16"]) == []  # nothing to stack


def test_the_second_sweep_stacks_what_the_first_has_measured(tmp_path):
    asked = sweeps(TiersOptions(model=MODEL, steps=30, folder=tmp_path))
    alone = next(asked)
    common, listed = alone.content["common"], alone.content["list"]
    assert common == {
        "model_id": MODEL, "inference_steps": 30, "dtype": "float32", "height": 1024, "width": 1024,
    }  # fmt: skip
    assert listed[0] == {} and {"scheduler": "dpmsolver++", "inference_steps": 12} in listed
    assert alone.content["repeats"] == 3
    base = {full_name(name): value for name, value in common.items()}
    cells = [refused({**base, **own}, "no") for own in listed]
    for number, own in enumerate(listed):
        if own in ({}, {"dtype": "float16"}, {"quantization": "int8-weight-only"}):
            cells[number] = measured(tmp_path / str(number), {**base, **own})
    stacked = asked.send(cells)
    assert stacked.content["list"] == [{"dtype": "float16", "quantization": "int8-weight-only"}]
    with pytest.raises(StopIteration):
        asked.send([])


IMAGE = np.random.default_rng(5).integers(0, 200, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def outcome(tmp_path):
    """A baseline, three techniques, a refused one, the distilled model and a stack."""
    options = TiersOptions(model=MODEL, folder=tmp_path)
    base = next(sweeps(options)).content["common"]

    def cell(name, own, seconds, shift=0, **more):
        more = {"height_px": 32, "width_px": 32, "steps": own.get("inference_steps", 50), **more}
        content = more.pop("of_content", {})
        pixels = [IMAGE + shift, IMAGE]
        return measured(tmp_path / name, {**base, **own}, seconds, pixels=pixels, of_content=content, **more)

    by_name = {one.name: one.options for one in EVERY}
    solver, half = by_name["DPM-Solver++, 20 steps"], by_name["float16"]
    distilled = by_name[f"distilled model {TURBO}"]
    load = [{"load_s": 1.0, "facts": {"weight_bytes": {"unet": {"float32": 4e9}, "vae": {"float16": 1e9}}}}]
    alone = [
        cell("base", {}, (10.0, 10.0), joules=(6000.0, 6000.0), dtype="float32"),
        cell("solver", solver, (4.0, 4.0), 3, joules=(2000.0, 2000.0), dtype="float32"),
        cell("half", half, (5.0, 5.0), 1, joules=(1000.0, 1000.0), of_content={"load": load}),
        refused({**base, **by_name["offload of components"]}, "offload needs a GPU"),
        refused({**base, **by_name["torch.compile"]}, "no compiler"),
        cell("turbo", {**distilled}, (0.5, 0.5), warnings=[("drift", "it drifted")]),
    ]
    turbo = json.loads((tmp_path / "turbo" / "results.json").read_text())
    turbo["configuration"]["model_id"] = TURBO
    (tmp_path / "turbo" / "results.json").write_text(json.dumps(turbo))
    stack = cell("stack", {**solver, **half}, (2.0, 2.0), 4)
    found = Outcome(tmp_path, {"alone": alone, "stacked": [stack]})
    after(options, found)
    return options, found


def test_the_table_tells_factors_likeness_and_gaps(outcome):
    made = report(*outcome)
    table = next(part for part in made.parts if isinstance(part, Table))
    rows = {row["techniques"]: row for row in table.rows}
    assert [row["tier"] for row in table.rows] == ["–", "1", "1", "2", "2", "3", "stack 1"]
    solver = rows["DPM-Solver++, 20 steps"]
    assert (solver["steps"], solver["dtype"]) == (20, "float32")
    assert solver["speed_factor"] == Measured(2.5, 2.5, 2.5) and solver["energy_factor"].value == 3
    assert solver["psnr_db"].value == pytest.approx(20 * np.log10(255 / 3))
    assert solver["identical_images"] == "1 of 2"
    assert rows["float16"]["weights_gb"] == Measured(5.0)
    assert "how many bytes" in rows["DPM-Solver++, 20 steps"]["weights_gb"].reason
    offload = rows["offload of components"]
    assert {v for k, v in offload.items() if k not in ("tier", "techniques")} == {Gap("offload needs a GPU")}
    turbo = rows[f"distilled model {TURBO}"]
    assert turbo["speed_factor"].value == 20
    assert f"{TURBO} is another model than" in turbo["ssim"].reason
    stack = rows["DPM-Solver++, 20 steps, float16"]
    assert stack["speed_factor"].value == 5 and "no GPU takes part" in stack["energy_factor"].reason
    json.dumps(report_json(made), allow_nan=False)


def test_the_chart_has_a_series_for_each_tier(outcome):
    chart = next(part for part in report(*outcome).parts if isinstance(part, Chart))
    assert [series.label for series in chart.series] == ["tier 1", "stack 1"]
    (point, _), _ = (series.points for series in chart.series)
    assert point.x == 2.5 and 0.9 < point.y < 1


def test_the_summary_quotes_no_doubtful_factor(outcome):
    made = report(*outcome)
    assert made.summary[0] == "Most: 5 times (5 to 5) faster, by DPM-Solver++, 20 steps, float16."
    assert made.summary[1].startswith("Most: 6 times (6 to 6) less energy, by float16.")
    left_out = next(part for part in made.parts if isinstance(part, Text))
    assert left_out.lines == ["torch.compile: no compiler"]
    pictures = next(part for part in made.parts if isinstance(part, Pictures))
    assert len(pictures.rows) == 5 and all(len(files) == 2 for _, files in pictures.rows)


def test_a_model_without_a_known_distilled_one_says_how_to_name_it(tmp_path):
    options = TiersOptions(model="tiny/sd1.5", folder=tmp_path)
    assert "--distilled names one" in report(options, Outcome(tmp_path)).summary[0]


def test_print_shows_the_baseline_and_what_this_machine_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "tiers", "--model", "tiny/sd1.5", "--print", "--set", "device=cpu"]) == 0
    text = capsys.readouterr().out
    assert "--enable_model_cpu_offload keeps weights in host memory until a GPU needs them" in text
    assert "further runs depend on the results of these" in text
    assert not list(Path().rglob("*"))
    assert TIERS.adaptive


@pytest.mark.full
def test_the_study_runs_on_tiny_models(tmp_path):
    command = [sys.executable, "-m", "mlenergy.diffusion", "study", "run", "tiers", "--quick"]
    command += ["--model", "tiny/sd1.5", "--distilled", "tiny/sdxl", "--steps", "4", "--folder", "tiers"]
    command += [w for o in ("height=64", "width=64", "benchmark_iters=2", "device=cpu") for w in ("--set", o)]
    done = forked.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads((tmp_path / "tiers" / "report.json").read_text())
    rows = {row["techniques"]: row for row in made["tables"]["tiers"]["rows"]}
    figures = {row["techniques"]: row for row in made["tables"]["figures"]["rows"]}
    assert {"baseline", "DPM-Solver++, 1 steps", "int8 weights", "distilled model tiny/sdxl"} <= set(rows)
    assert rows["flash attention"]["ssim"] == pytest.approx(1, abs=1e-3)
    assert figures["int8 weights"]["weights_gb"] < figures["baseline"]["weights_gb"]
    assert "on the CPU they are there already" in rows["offload of components"]["reasons"]["speed_factor"]
    assert any(row["tier"].startswith("stack") and row["speed_factor"] for row in rows.values())
    assert "tiny/sdxl is another model" in rows["distilled model tiny/sdxl"]["reasons"]["ssim"]
