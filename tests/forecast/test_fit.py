"""The constants follow from the published runs, and their errors are those that the page states."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from mlenergy.diffusion.forecast.errors import misses, summary, video_misses
from mlenergy.diffusion.forecast.fitting import Fit, fit
from mlenergy.diffusion.forecast.formula import POWER, TIME, Card, power_of, times_of
from mlenergy.diffusion.forecast.predict import read_fitted
from mlenergy.diffusion.forecast.published import published_runs, published_videos

ROOT = Path(__file__).parents[2]
FILE = json.loads((resources.files("mlenergy.diffusion") / "data" / "forecast.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def rows():
    return list(published_runs())


def test_the_file_follows_from_the_runs():
    done = subprocess.run(
        [sys.executable, "scripts/fit_forecast.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "the constants follow from the runs\n"), done.stderr


def test_errors_of_runs_left_out(rows):
    errors = FILE["errors"]
    assert errors["runs"]["seconds"]["rows"] == len(rows) == 479
    assert (
        errors["runs"]["seconds"]["median_error"] <= 0.06 and errors["runs"]["seconds"]["p90_error"] <= 0.15
    )
    assert errors["runs"]["joules"]["median_error"] <= 0.08 and errors["runs"]["joules"]["p90_error"] <= 0.20
    assert errors["models"]["seconds"]["median_error"] <= 0.15
    assert errors["models"]["joules"]["median_error"] <= 0.15


def test_the_errors_of_the_file_are_found_again_with_another_draw(rows):
    found = summary(misses(rows, seed=1))
    for kind, quantities in FILE["errors"].items():
        if kind == "videos":
            continue  # not of these rows
        for quantity, known in quantities.items():
            assert found[kind][quantity]["median_error"] == pytest.approx(known["median_error"], abs=0.01)
            for end in ("low", "high"):
                assert found[kind][quantity][end] == pytest.approx(known[end], abs=0.03)


def test_constants_are_found_again_in_runs_that_they_made(rows):
    """Runs made by the formula itself, with known constants and a slower model, and no noise."""
    true = FILE["time"]["H100"] | {"matmul_share": 0.6, "score_rate": 2e12, "launch_s": 8e-6}
    watts = FILE["power"]["H100"] | {"base_w": 140.0}
    slow = rows[0].model
    made = []
    for row in (row for row in rows if row.card.name == "H100"):
        times = times_of(row.work, row.card, true, 1.2 if row.model == slow else 1.0)
        joules = row.work.gpus * power_of(times, row.card, watts) * times.duration_s
        made.append(replace(row, duration_s=float(times.duration_s), energy_j=float(joules)))
    fitted = fit(made)
    assert [fitted.duration_s(row) / row.duration_s for row in made] == pytest.approx(
        [1] * len(made), abs=0.03
    )
    assert [fitted.energy_j(row) / row.energy_j for row in made] == pytest.approx([1] * len(made), abs=0.03)
    others = np.mean([factor for model, factor in fitted.models.items() if model != slow])
    assert fitted.models[slow] / others == pytest.approx(1.2, abs=0.05)


def test_seconds_by_hand():
    """One number for each term, added up here on a path of its own."""
    card = Card("X", 100e12, 1e12, 1e9)
    unit = dict.fromkeys(TIME, 1.0) | {
        "matmul_share": 0.5,
        "memory_share": 0.5,
        "matmul_side": 10,
        "matmul_rows": 20,
    }
    unit |= {"score_rate": 1e9, "launch_s": 1e-12, "call_s": 0.25, "image_s": 0.125}

    class Step:
        matmul_flops, matmul_flops_per_side, matmul_flops_a_row = 40e12, 0.5e12, 0.25e12
        attention_flops, attention_scores, elementwise_bytes, kernels = 8e12, 0.1e9, 0.05e12, 1

    class Nothing:
        matmul_flops = matmul_flops_per_side = matmul_flops_a_row = 0.0
        attention_flops = attention_scores = elementwise_bytes = kernels = 0.0

    class Work:
        text, decode, step = Nothing, Nothing, Step
        steps, images, gpus, ulysses, ring = 3, 2, 1, 1, 1
        attentions = query_bytes = ulysses_bytes = ring_bytes = other_bytes = 0.0

    matmul = (40 + 10 * 0.5 + 20 * 0.25) / (0.5 * 100)
    attention = 8 / (0.8 * 100) + 0.1
    rest = 0.05 / 0.5
    times = times_of(Work, card, unit)
    assert times.duration_s == pytest.approx(0.25 + 2 * 0.125 + 3 * (matmul + attention + rest))
    watts = {"base_w": 50.0, "matmul_w": 300.0, "attention_w": 200.0, "memory_w": 100.0, "link_w": 1e6}
    assert set(watts) == set(POWER)
    energy = 3 * (300 * matmul + 200 * attention + 100 * rest)
    assert power_of(times, card, watts) == pytest.approx(50 + energy / times.duration_s)


def test_the_card_limits_the_power(rows):
    row = max(rows, key=lambda row: row.work.step.matmul_flops)
    times = times_of(row.work, row.card, FILE["time"][row.card.name])
    watts = {name: 10 * value for name, value in FILE["power"][row.card.name].items()}
    assert power_of(times, row.card, watts) <= row.card.power_w


def test_the_errors_of_videos_are_those_of_the_page():
    known = read_fitted()
    videos = list(published_videos(may_count=False))
    found = video_misses(videos, Fit(known.time, known.power, known.models))
    page = (ROOT / "docs" / "forecast.md").read_text().partition("<!-- videos, made by")[2]
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line[:2] == "| "
    ]
    rows = {row[0]: row for row in cells}
    models = {miss.row.model for miss in found}
    assert "zai-org/CogVideoX-2b" in models
    for model in models:
        own = [miss for miss in found if miss.row.model == model]
        assert rows[model][1] == str(len(own))
        assert float(rows[model][2]) == pytest.approx(np.median([np.exp(-m.seconds) for m in own]), abs=0.02)
        assert float(rows[model][6]) == pytest.approx(np.median([np.exp(-m.joules) for m in own]), abs=0.02)
