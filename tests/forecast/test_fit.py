"""The constants follow from the published runs, and their errors are those that the page states."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from mlenergy.diffusion.forecast.errors import misses, summary
from mlenergy.diffusion.forecast.fitting import fit
from mlenergy.diffusion.forecast.formula import POWER, TIME, Card, power_of, times_of
from mlenergy.diffusion.forecast.published import published_runs

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
    assert [errors[kind]["seconds"]["rows"] for kind in ("runs", "videos")] == [479, 287]
    assert len(rows) == 479 + 287
    for kind in ("runs", "videos"):
        seconds, joules = errors[kind]["seconds"], errors[kind]["joules"]
        assert seconds["median_error"] <= 0.06 and seconds["p90_error"] <= 0.15
        assert joules["median_error"] <= 0.08 and joules["p90_error"] <= 0.20
    for kind in ("models", "video_models"):
        assert errors[kind]["seconds"]["median_error"] <= 0.15
        assert errors[kind]["joules"]["median_error"] <= 0.15


def test_a_quarter_left_out_is_as_wrong_as_the_file_says(rows):
    """One fit to three quarters of the runs, drawn otherwise than the file's."""
    out = np.random.default_rng(7).permutation(len(rows)) % 4 == 0
    fitted = fit([row for row, left in zip(rows, out, strict=True) if not left])
    for kind in ("runs", "videos"):
        own = [
            row
            for row, left in zip(rows, out, strict=True)
            if left and (row.work.video_pixels > 0) == (kind == "videos")
        ]
        seconds = np.abs([fitted.duration_s(row) / row.duration_s - 1 for row in own])
        joules = np.abs([fitted.energy_j(row) / row.energy_j - 1 for row in own])
        for found, known in (
            (seconds, FILE["errors"][kind]["seconds"]),
            (joules, FILE["errors"][kind]["joules"]),
        ):
            assert np.median(found) == pytest.approx(known["median_error"], abs=0.015)
            assert np.quantile(found, 0.9) == pytest.approx(known["p90_error"], abs=0.04)


@pytest.mark.full
def test_the_errors_of_the_file_are_found_again_with_another_draw(rows):
    found = summary(misses(rows, seed=1))
    for kind, quantities in FILE["errors"].items():
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
    assert [fitted.energy_j(row) / row.energy_j for row in made] == pytest.approx([1] * len(made), abs=0.05)
    others = np.mean([factor for model, factor in fitted.models.items() if model != slow])
    assert fitted.models[slow] / others == pytest.approx(1.2, abs=0.05)


def test_seconds_by_hand():
    """One number for each term, added up here on a path of its own."""
    card = Card("X", 100e12, 1e12, 1e12, 1e9)
    unit = dict.fromkeys(TIME, 1.0) | {
        "matmul_share": 0.5,
        "memory_share": 0.5,
        "matmul_side": 10,
        "matmul_rows": 20,
    }
    unit |= {"score_rate": 1e9, "launch_s": 1e-12, "call_s": 0.25, "image_s": 0.125}
    unit |= {"attention_share": 0.8, "attention_tokens": 500}
    unit |= {"video_pixel_s": 1e-6, "video_decode": 2.0}

    class Step:
        matmul_flops, matmul_flops_per_side, matmul_flops_a_row = 40e12, 0.5e12, 0.25e12
        attention_flops, attention_scores, elementwise_bytes, kernels = 8e12, 0.1e9, 0.05e12, 1

    class Nothing:
        matmul_flops = matmul_flops_per_side = matmul_flops_a_row = 0.0
        attention_flops = attention_scores = elementwise_bytes = kernels = 0.0

    class Work:
        text, decode, step = Nothing, Nothing, Step
        steps, images, gpus, ulysses, ring = 3, 2, 1, 1, 1
        video_pixels, sequence_tokens, decoding_gpus = 0, 2000, 1
        attentions = query_bytes = ulysses_bytes = ring_bytes = other_bytes = 0.0

    matmul = (40 + 10 * 0.5 + 20 * 0.25) / (0.5 * 100)
    attention = (8 / (0.8 * 100) + 0.1) * (1 + 500 / 2000)
    rest = 0.05 / 0.5
    times = times_of(Work, card, unit)
    assert times.duration_s == pytest.approx(0.25 + 2 * 0.125 + 3 * (matmul + attention + rest))

    class Video(Work):
        images, video_pixels, decode = 0, 1e6, Step
        gpus, decoding_gpus = 4, 2

    plain = matmul + attention / 1.25 + rest  # a decoder's attention is not slowed
    video = times_of(Video, card, unit)
    assert video.duration_s == pytest.approx(0.25 + 1 + 3 * (matmul + attention + rest) + 2 * plain)
    assert video.elementwise_s == pytest.approx((3 + 2 * 2 / 4) * rest)
    watts = {"base_w": 50.0, "matmul_w": 300.0, "attention_w": 200.0, "memory_w": 100.0, "link_w": 1e6}
    assert set(watts) == set(POWER)
    energy = 3 * (300 * 40 / (0.5 * 100) + 200 * (8 / (0.8 * 100) + 0.1) + 100 * rest)
    assert power_of(times, card, watts) == pytest.approx(50 + energy / times.duration_s)


def test_the_card_limits_the_power(rows):
    row = max(rows, key=lambda row: row.work.step.matmul_flops)
    times = times_of(row.work, row.card, FILE["time"][row.card.name])
    watts = {name: 10 * value for name, value in FILE["power"][row.card.name].items()}
    assert power_of(times, row.card, watts) <= row.card.power_w
