"""Aims and published figures beside measured parts: what counts for one, and what it then says."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from mlenergy.diffusion.models.listed import BY_ID

SCRIPTS = Path(__file__).parents[2] / "scripts"
FLUX = "black-forest-labs/FLUX.1-dev"
AIM = {
    **{"model_id": FLUX, "steps": 50, "size": "1024x1024", "gpu": "H200", "gpus": 1},
    **{"seconds": 6.4, "joules": 4400, "basis": "ours"},
}


@pytest.fixture
def published(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("published")


def part(seconds=6.0, joules=4000.0, **changes):
    return {
        **{"model_id": FLUX, "steps": 50, "size": "1024x1024", "frames": None, "batch_size": 1},
        **{"gpu": "NVIDIA H200", "gpus": 1, "lossy": [], "acted": True},
        **{"seconds_per_output": seconds, "joules_per_output": joules, **changes},
    }


def test_every_figure_has_its_work_its_gpus_its_source_and_its_date(published):
    content = json.loads(published.FILE.read_bytes())
    for figure in content["figures"]:
        model = BY_ID[figure["model_id"]]
        assert bool(figure.get("frames")) == model.family.makes_video
        assert figure["seconds"] > 0 and figure["gpus"] >= 1 and figure["source"] and "date" in figure
        assert published._driver_names(figure["gpu"])
    best = {
        (one["gpu"], one["gpus"]): one["seconds"]
        for one in content["figures"]
        if one["how"] == "sglang" and one["model_id"] == FLUX
    }
    expected = {("H200", 1): 6.55, ("H100", 1): 6.69, ("B200", 1): 3.61, ("H200", 2): 4.15, ("H100", 2): 4.24}
    assert best == expected | {("B200", 2): 2.78}
    aims = {(one["model_id"].rpartition("/")[2], one["seconds"], one["joules"]) for one in content["aims"]}
    assert {("FLUX.1-dev", 6.4, 4400), ("FLUX.1-dev", 6.0, 4400), ("FLUX.2-dev", 22.0, None)} < aims
    assert ("stable-diffusion-xl-base-1.0", 1.3, None) in aims


@pytest.mark.parametrize(
    ("parts", "met", "by"),
    [
        ({"a": part()}, True, "a"),
        ({"a": part(seconds=6.4, joules=4400.0)}, True, "a"),
        ({"a": part(seconds=6.41)}, False, "a"),
        ({"a": part(joules=4401.0)}, False, "a"),
        ({"a": part(joules=None)}, False, "a"),  # joules that nobody knows are not few
        ({"a": part(seconds=5.0, joules=5000.0), "b": part(seconds=6.3)}, True, "b"),  # one holds both
        ({"a": part(seconds=5.0, joules=5000.0), "b": part(seconds=7.0)}, False, "a"),
        ({}, None, None),
    ],
)
def test_an_aim_is_met_by_one_part_that_holds_all_of_it(published, parts, met, by):
    found = published.against_aim(AIM, parts)
    assert (found["met"], found["part"]) == (met, by)
    line = published.aim_line(found)
    assert {True: ": met by ", False: ": not met by ", None: ": not measured"}[met] in line
    if by is not None:
        assert f"{parts[by]['seconds_per_output']:.4g} s" in line and line.endswith(f"({by})")


@pytest.mark.parametrize(
    "changes",
    [
        {"lossy": ["first-block cache"]},
        {"acted": False},
        {"gpus": 2},
        {"gpu": "NVIDIA H200 NVL"},
        {"gpu": "NVIDIA H100 80GB HBM3"},
        {"steps": 28},
        {"size": "512x512"},
        {"batch_size": 4},
        {"model_id": "black-forest-labs/FLUX.1-schnell"},
    ],
)
def test_other_work_other_gpus_and_inexact_images_meet_no_aim(published, changes):
    assert published.against_aim(AIM, {"a": part(**changes)})["met"] is None


def test_the_aims_and_options_of_the_report_are_judged_by_every_lossy_option(published, monkeypatch):
    report = importlib.import_module("gpu_acceptance_report")
    monkeypatch.setattr(report, "_forecast", lambda _: {})
    knobs = {"attention": "sage", "cache": None, "quantization": None}
    statistics = {"mean": 5.0, "ci95_half_width": 0.1}
    result = {
        "model_id": FLUX,
        "weights": "random",
        "effects": [],
        "warnings": [],
        "iterations": [],
        "load": [{"load_s": 1}],
        "statistics": {"time_per_image_s": statistics, "energy_per_image_j": None},
        "energy_measurement": {"mean_power_w": None, "energy_source": "none"},
        "configuration": {
            "steps": 50,
            "dtype": "bfloat16",
            "engine": "xdit",
            "knobs": knobs,
            "device_name": "NVIDIA H200",
            "parallel": {"world_size": 1},
            "batch_size": 1,
            "width_px": 1024,
            "height_px": 1024,
        },
        **dict.fromkeys(("tflops_per_gpu", "mfu", "j_per_tflop", "peak_memory_gb", "first_call_s")),
    }
    assert report._figures(result)["lossy"] and report._figures(result)["acted"]
    assert not report._figures({**result, "effects_failed": ["a line"]})["acted"]


def test_published_figures_stand_beside_ours_of_the_same_work(published):
    parts = {"slow": part(8.0), "fast": part(6.0), "cached": part(3.0, lossy=["a cache"])}
    figures = {(one["how"], one["gpu"], one["gpus"]): one for one in published.compared(parts)["published"]}
    ours = figures["sglang", "H200", 1]
    assert (ours["part"], ours["measured_seconds"]) == ("fast", 6.0)
    assert ours["ours_over_published"] == pytest.approx(6.0 / 6.55)
    assert figures["sglang", "H200", 2]["part"] is None, "of two GPUs"
    assert figures["sglang", "H100", 1]["measured_seconds"] is None
    assert all(one["steps"] == 50 for one in figures.values()), "28 steps were not run"
    cells = published.figure_cells(ours)
    assert cells[1:3] == ("1 x H200", "6.55") and cells[4:6] == ("6 (fast)", "0.916")
    assert "2026-06" in cells[6]
