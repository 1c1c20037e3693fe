"""The study `ablation`: its combinations, their factors, the effect of each level, and refusals."""

import json
import sys
from pathlib import Path

import forked
import pytest
from study_cells import failed, measured, refused

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.studies.ablation import AblationOptions, Levels, report, sweeps
from mlenergy.diffusion.studies.command import main
from mlenergy.diffusion.studies.content import Gap, Table
from mlenergy.diffusion.studies.files import report_json
from mlenergy.diffusion.studies.outcome import Outcome
from mlenergy.diffusion.sweep.options import full_name

SMALL = AblationOptions(
    parallel=("none", "cfg"),
    attention=("auto",),
    precision=("own", "bfloat16"),
    cache=("none",),
    compile=("none", "regional"),
)


def listed(options):
    (sweep,) = [next(sweeps(options))]
    return sweep.content["list"]


def test_the_product_has_every_combination_and_single_changes_one_level():
    runs = listed(AblationOptions())
    assert len(runs) == 3 * 2 * 3 * 3 * 2 == len({json.dumps(run) for run in runs})
    assert not any(value for value in runs[0].values())  # the baseline: all defaults
    assert {full_name(name) for run in runs for name in run}  # raises for an option that does not exist
    single = listed(AblationOptions(design="single"))
    assert len(single) == 1 + 2 + 1 + 2 + 2 + 1
    assert listed(AblationOptions(quick=True)) == listed(
        AblationOptions(
            design="single", parallel=("none", "ulysses"), attention=("auto", "cudnn"),
            precision=("own", "int8"), cache=("none", "fbcache"),
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("factor", "level", "options"),
    [
        ("parallel", "ulysses", {"ulysses_degree": 4}),
        ("parallel", "ring", {"ring_degree": 4}),
        ("parallel", "cfg", {"use_cfg_parallel": True}),
        ("parallel", "data", {"data_parallel_degree": 4}),
        ("parallel", "pipefusion", {"pipefusion_parallel_degree": 4}),
        ("parallel", "tensor", {"tensor_parallel_degree": 4}),
        ("attention", "flash", {"attention_backend": "flash"}),
        ("precision", "float32", {"dtype": "float32"}),
        ("precision", "int8", {"quantization": "int8-weight-only"}),
        ("precision", "int8-dynamic", {"quantization": "int8-dynamic"}),
        ("precision", "fp8", {"quantization": "fp8-weight-only"}),
        ("precision", "fp8-dynamic", {"quantization": "fp8-dynamic"}),
        ("cache", "taylorseer", {"cache_method": "taylorseer"}),
        ("compile", "whole", {"use_torch_compile": True, "compile_mode": "whole"}),
    ],
)
def test_a_level_sets_its_options(factor, level, options):
    first = {"parallel": "none", "attention": "auto", "precision": "own", "cache": "none", "compile": "none"}
    levels = {name: ((one, level) if name == factor else (one,)) for name, one in first.items()}
    baseline, run = listed(AblationOptions(degree=4, **levels))
    assert run == options and not any(baseline.values())


def test_a_level_given_twice_is_refused():
    with pytest.raises(UserError, match="--cache names fbcache twice"):
        Levels.of(AblationOptions(cache=("fbcache", "none", "fbcache")))
    with pytest.raises(UserError, match="--cache names no level"):
        Levels.of(AblationOptions(cache=()))


@pytest.fixture
def outcome(tmp_path):
    """Two levels of three factors: one combination refused twice over, one that failed."""
    seconds = {
        ("none", "own", "none"): (8.0, 8.0),
        ("none", "own", "regional"): (4.0, 4.0),
        ("none", "bfloat16", "none"): (2.0, 2.0),
        ("none", "bfloat16", "regional"): (2.0, 2.0),
        ("cfg", "own", "none"): (5.0, 5.0),
    }
    cells = []
    for run in listed(SMALL):
        key = (
            "cfg" if run["use_cfg_parallel"] else "none",
            run["dtype"] or "own",
            "regional" if run["use_torch_compile"] else "none",
        )
        if key in seconds:
            cells.append(measured(tmp_path / "-".join(key), run, seconds[key], joules=(20.0, 20.0)))
        elif key == ("cfg", "own", "regional"):
            cells.append(failed(run, "out of memory"))
        else:
            cells.append(refused(run, "cfg and bfloat16 exclude each other"))
    return Outcome(tmp_path, {"runs": cells})


def test_factors_effects_and_refusals(outcome):
    made = report(SMALL, outcome)
    tables = {part.name: part for part in made.parts if isinstance(part, Table)}
    rows = {(r["parallel"], r["precision"], r["compile"]): r for r in tables["combinations"].rows}
    assert len(rows) == 5
    speeds = {key: row["speed_factor"].value for key, row in rows.items()}
    assert speeds["none", "own", "none"] == 1 and speeds["none", "own", "regional"] == 2
    assert speeds["none", "bfloat16", "none"] == speeds["none", "bfloat16", "regional"] == 4
    effects = {row["level"]: row for row in tables["effects"].rows}
    # regional instead of none: 8 -> 4 s without bfloat16, 2 -> 2 s with it.
    compiled = effects["regional"]
    assert (compiled["pairs"], compiled["speed_least"], compiled["speed_most"]) == (2, 1, 2)
    assert compiled["speed_factor"] == pytest.approx(2**0.5)
    assert compiled["instead_of"] == "none"
    half = effects["bfloat16"]
    assert (half["pairs"], half["speed_least"], half["speed_most"]) == (2, 2, 4)
    assert half["energy_factor"] == 1
    cfg = effects["cfg"]
    assert (cfg["pairs"], cfg["speed_factor"]) == (1, pytest.approx(1.6))
    (refusal,) = tables["refused"].rows
    assert refusal == {
        "reason": "cfg and bfloat16 exclude each other",
        "combinations": 2,
        "in_common": "parallel cfg, precision bfloat16",
    }
    assert made.summary[1] == "Fastest: 4 times (4 to 4), with precision bfloat16."
    json.dumps(report_json(made), allow_nan=False)


def test_a_doubtful_factor_is_not_called_the_fastest(outcome, tmp_path):
    cells = outcome.cells("runs")
    fast = [n for n, one in enumerate(cells) if one.set_up and one.set_up.seconds.mean == 2]
    for number in fast:
        warned = {"warnings": [("drift", "it drifted")], "joules": (20.0, 20.0)}
        place = tmp_path / f"again-{number}"
        cells[number] = measured(place, cells[number].options, (2.0, 2.0), **warned)
    made = report(SMALL, Outcome(outcome.folder, {"runs": cells}))
    assert made.summary[1] == "Fastest: 2 times (2 to 2), with compile regional."


def test_without_a_baseline_no_factor_is_known(outcome):
    cells = outcome.cells("runs")
    without = Outcome(outcome.folder, {"runs": [failed(cells[0].options, "out of memory"), *cells[1:]]})
    made = report(SMALL, without)
    table = next(part for part in made.parts if isinstance(part, Table))
    assert {row["speed_factor"] for row in table.rows} == {Gap("the baseline has no result: out of memory")}
    assert made.summary[1] == "The baseline has no result (out of memory): no factor is known."


def test_print_plans_every_combination_of_a_tiny_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "tiny/pixart-sigma", "--attention", "auto", "--cache", "none", "fbcache"]
    assert main(["run", "ablation", *words, "--print", "--set", "device=cpu"]) == 0
    out = capsys.readouterr().out
    commands = [line for line in out.splitlines() if "torchrun" in line]
    refusals = [line for line in out.splitlines() if "cannot work" in line]
    assert len(commands) + len(refusals) == 3 * 3 * 2 * 2
    assert sum("fp8-dynamic multiplies in float8, which needs an NVIDIA GPU" in one for one in refusals) > 0
    assert any("--nproc_per_node=2" in line and "--ulysses_degree 2" in line for line in commands)
    assert not list(Path().rglob("*"))


@pytest.mark.full
def test_the_study_runs_on_a_tiny_model(tmp_path):
    command = [sys.executable, "-m", "mlenergy.diffusion", "study", "run", "ablation", "--folder", "a"]
    command += ["--model", "tiny/flux", "--iters", "2", "--attention", "auto", "--compile", "none"]
    command += [
        "--parallel",
        "none",
        "ulysses",
        "--precision",
        "own",
        "int8",
        "--cache",
        "none",
        "taylorseer",
    ]
    options = ("height=64", "width=64", "device=cpu", "engine=diffusers", "inference_steps=4")
    command += [word for option in options for word in ("--set", option)]
    done = forked.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads((tmp_path / "a" / "report.json").read_text())["tables"]
    rows = made["combinations"]["rows"]
    assert rows[0]["speed_factor"] == 1 and len(rows) == 6
    assert {row["processes"] for row in rows} == {1, 2}
    split = next(row for row in rows if row["parallel"] == "ulysses" and row["precision"] == "own")
    assert split["ssim"] == pytest.approx(1, abs=1e-3)
    assert {row["level"]: row["pairs"] for row in made["effects"]["rows"]}["ulysses"] == 2
    (refusal,) = made["refused"]["rows"]
    assert refusal["combinations"] == 2 and "processes that share an image would part" in refusal["reason"]
