"""The study `scaling` on results with known laws."""

from __future__ import annotations

import pytest
from result_folders import result

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.studies.files import csv_text, report_json
from mlenergy.diffusion.studies.scaling import ScalingOptions, report, sweeps

from .conftest import gpu_result

MODEL = "black-forest-labs/FLUX.1-dev"
OPTIONS = ScalingOptions(models=(MODEL,))
PIXELS = "pixels of an image"
EDGES, STEPS = (256, 512, 1024, 2048), (5, 10, 20)


@pytest.fixture
def measured(make_cell, make_outcome):
    """Seconds grow with the pixels to 1.5 and linearly with the steps; joules are 1000 times as many."""

    def make(*more):
        sizes = [
            make_cell(
                gpu_result(1e-8 * (edge * edge) ** 1.5, height_px=edge, width_px=edge),
                sweep="size", model_id=MODEL, height=edge, width=edge,
            )
            for edge in EDGES
        ]  # fmt: skip
        steps = [
            make_cell(gpu_result(0.2 * n, steps=n), sweep="steps", model_id=MODEL, inference_steps=n)
            for n in STEPS
        ]
        return make_outcome(*sizes, *steps, *more)

    return make


def rows(told, table):
    return told["tables"][table]["rows"]


def test_the_exponents_are_those_of_the_laws(measured):
    told = report_json(report(OPTIONS, measured()))
    found = {(row["dimension"], row["quantity"]): row for row in rows(told, "exponents")}
    for quantity in ("seconds an image", "joules an image", "seconds of denoising"):
        over_pixels, over_steps = (
            found[name, quantity] for name in ("pixels of an image", "denoising steps")
        )
        assert over_pixels["exponent"] == pytest.approx(1.5) and over_pixels["points"] == 4
        assert over_steps["exponent"] == pytest.approx(1.0) and over_steps["points"] == 3
        assert over_pixels["exponent_ci95_low"] == pytest.approx(1.5, abs=1e-6)
        assert over_pixels["largest_residual_percent"] == pytest.approx(0, abs=1e-6)
    assert f"{MODEL}: seconds an image over pixels of an image: exponent 1.500 ± 0.000" in told["summary"]
    assert "linear in steps" in told["summary"][-1]


def test_a_point_off_the_law_has_its_residual(make_cell, make_outcome):
    cells = [
        make_cell(gpu_result(seconds, steps=n), sweep="steps", model_id=MODEL, inference_steps=n)
        for n, seconds in ((1, 1.0), (10, 20.0), (100, 100.0))
    ]
    told = report_json(report(OPTIONS, make_outcome(*cells)))
    residuals = [
        row["residual_percent"] for row in rows(told, "residuals") if row["quantity"][:8] == "seconds "
    ]
    # ln y = ln x + (0, ln 2, 0): the fit lies a third of ln 2 above the ends.
    expected = [100 * (2 ** (-1 / 3) - 1), 100 * (2 ** (2 / 3) - 1), 100 * (2 ** (-1 / 3) - 1)]
    assert residuals[:3] == pytest.approx(expected)
    [row] = [row for row in rows(told, "exponents") if row["dimension"] == "denoising steps"][:1]
    assert row["largest_residual_percent"] == pytest.approx(max(expected))
    assert row["standard_error"] == pytest.approx(0.1738, abs=1e-4)


def test_what_was_not_measured_is_null_with_its_reason(measured, make_cell):
    failed = make_cell("out of memory on GPU 0", sweep="size", model_id=MODEL, height=4096, width=4096)
    made = report(OPTIONS, measured(failed))
    told = report_json(made)
    gap = rows(told, "points_size")[-1]
    assert gap["pixels"] == 4096 * 4096 and gap["time_per_image_s"] is None
    assert gap["reasons"]["time_per_image_s"] == "out of memory on GPU 0"
    [points] = [table for table in made.tables if table.name == "points_size"]
    last = csv_text(points).splitlines()[-1]
    assert last.startswith(f"{MODEL},16777216.0,,") and "out of memory on GPU 0" in last
    assert rows(told, "exponents")[0]["points"] == 4  # the others still have their exponent


def test_without_energy_the_joules_have_no_exponent(make_cell, make_outcome):
    cells = [
        make_cell(gpu_result(n, joules=None, steps=n), sweep="steps", model_id=MODEL, inference_steps=n)
        for n in STEPS
    ]
    found = rows(report_json(report(OPTIONS, make_outcome(*cells))), "exponents")
    [joules] = [
        r for r in found if r["quantity"] == "joules an image" and r["dimension"] == "denoising steps"
    ]
    assert joules["exponent"] is None and "no GPU takes part" in joules["reasons"]["exponent"]


def test_a_doubtful_point_makes_the_exponent_doubtful(make_cell, make_outcome):
    warnings = [("drift", "the clocks fell")]
    cells = [
        make_cell(gpu_result(n, steps=n, warnings=warnings), sweep="steps", model_id=MODEL, inference_steps=n)
        for n in STEPS
    ]
    found = rows(report_json(report(OPTIONS, make_outcome(*cells))), "exponents")
    for quantity in ("seconds an image", "seconds of denoising"):
        [row] = [r for r in found if (r["quantity"], r["dimension"]) == (quantity, "denoising steps")]
        assert row["doubts"] == {"exponent": ["the clocks fell"]}


def test_quick_takes_the_smallest_points():
    first = next(sweeps(ScalingOptions(quick=True)))
    assert first.content["grid"]["height, width"] == [[512, 512], [768, 768], [1024, 1024]]


def test_one_size_and_one_number_of_steps_are_refused():
    with pytest.raises(UserError, match="an exponent needs two or more"):
        next(sweeps(ScalingOptions(sizes=(512, 512), steps=(4,))))


WAN = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
OF_WAN = ScalingOptions(models=(WAN,))


def test_videos_scale_over_frames_too(make_cell, make_outcome):
    def cell(sweep, seconds, height=480, width=832, num_frames=81, inference_steps=50):
        windows = [seconds] * 2
        joules = [500 * one for one in windows]
        sizes = {"height_px": height, "width_px": width, "num_frames": num_frames, "steps": inference_steps}
        given = {"height": height, "width": width} if sweep == "size" else {}
        given |= {"num_frames": num_frames} if sweep == "frames" else {}
        given |= {"inference_steps": inference_steps} if sweep == "steps" else {}
        content = result(windows, joules, video=True, batch_size=1, **sizes)
        return make_cell(content, sweep=sweep, model_id=WAN, **given)

    sizes = [cell("size", 1e-9 * (edge * edge) ** 2, height=edge, width=edge) for edge in (256, 384, 512)]
    frames = [cell("frames", 0.01 * n**1.5, num_frames=n) for n in (17, 33, 49, 81)]
    steps = [cell("steps", 0.3 * n, inference_steps=n) for n in STEPS]
    told = report_json(report(OF_WAN, make_outcome(*sizes, *frames, *steps)))
    found = {(row["dimension"], row["quantity"]): row["exponent"] for row in rows(told, "exponents")}
    for quantity in ("seconds a video", "joules a video", "seconds of denoising"):
        assert found["pixels of a frame", quantity] == pytest.approx(2.0)
        assert found["frames of a video", quantity] == pytest.approx(1.5)
        assert found["denoising steps", quantity] == pytest.approx(1.0)
    assert len(found) == 9
    first = rows(told, "points_frames")[0]
    assert first["frames"] == 17 and first["time_per_video_s"] == pytest.approx(0.01 * 17**1.5)
    assert first["energy_per_video_j"] == pytest.approx(500 * first["time_per_video_s"])
    assert "time_per_video_s_over_frames" in told["charts"] and told["title"].endswith("frames and steps")
    assert f"{WAN}: seconds a video over frames of a video: exponent 1.500 ± 0.000" in told["summary"]


def test_each_sweep_of_videos_varies_one_thing():
    options = ScalingOptions(models=(WAN,), steps=(2, 4), at_frames=33, at_size=256, at_steps=8)
    size, frames, steps = (sweep.content for sweep in sweeps(options))
    assert size["grid"]["height, width"][0] == [256, 256]
    assert frames["grid"] == {"model_id": [WAN], "num_frames": [17, 33, 49, 81]}
    assert steps["grid"]["inference_steps"] == [2, 4]
    at = {"height": 256, "width": 256, "num_frames": 33, "inference_steps": 8}
    for content, varied in (
        (size, {"height", "width"}),
        (frames, {"num_frames"}),
        (steps, {"inference_steps"}),
    ):
        assert {name: value for name, value in content["common"].items() if name in at} == {
            name: value for name, value in at.items() if name not in varied
        }
        assert content["common"]["workload"] == "text-to-video"
    assert [sweep.name for sweep in sweeps(OPTIONS)] == ["size", "steps"]


def test_frames_of_images_and_both_kinds_in_one_study_are_refused():
    with pytest.raises(UserError, match=r"FLUX.1-dev makes images, which have no frames; leave --frames"):
        next(sweeps(ScalingOptions(models=(MODEL,), frames=(17, 33))))
    with pytest.raises(UserError, match=r"FLUX.1-dev makes images and Wan-AI/.* videos"):
        next(sweeps(ScalingOptions(models=(MODEL, WAN))))
    unlisted = next(sweeps(ScalingOptions(models=("someone/a-model",), at_frames=17)))
    assert unlisted.content["common"]["workload"] == "text-to-video"
