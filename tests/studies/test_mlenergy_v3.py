"""The study `mlenergy-v3`: what it runs, and its report on results with known figures."""

from __future__ import annotations

import math

import pytest
from result_folders import ENVIRONMENT, result

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.results.published import published_runs
from mlenergy.diffusion.studies.files import csv_text, report_json
from mlenergy.diffusion.studies.mlenergy_v3 import sweeps
from mlenergy.diffusion.studies.mlenergy_v3_options import MlEnergyV3Options
from mlenergy.diffusion.studies.mlenergy_v3_report import report

FLUX = "black-forest-labs/FLUX.1-dev"
PIXART = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
H100, B200, H200 = "NVIDIA H100 80GB HBM3", "NVIDIA B200", "NVIDIA H200"
IMAGE = MlEnergyV3Options(parts=("image",))
# Of the public leaderboard, FLUX.1-dev: seconds of a batch of two, joules of an image.
ONE_H100, TWO_H100 = (22.889156, 7866.3075), (15.011784, 8627.89675)
ONE_B200 = (15.566606, 6863.780125)


@pytest.fixture
def flux(make_cell):
    """A cell of FLUX.1-dev as it was published, batch 2, with these seconds a window and joules an image."""

    def make(seconds, joules_an_image, ulysses=1, ring=1, batch=2, gpu=H100, model=FLUX, **changes):
        joules = None if joules_an_image is None else [joules_an_image * batch] * len(seconds)
        settings = {"steps": 50, "height_px": 1024, "width_px": 1024, "spec": BY_ID[model]}
        parallel = Parallelism(ulysses=ulysses, ring=ring)
        settings |= {"batch_size": batch, "device_name": gpu, "parallel": parallel, **changes}
        return make_cell(
            result(seconds, joules, **settings),
            sweep="image", model_id=model, batch_size=batch, ulysses_degree=ulysses, ring_degree=ring,
        )  # fmt: skip

    return make


@pytest.fixture
def failed(make_cell):
    return make_cell(
        "out of memory on GPU 0",
        sweep="image", model_id=FLUX, batch_size=2, ulysses_degree=1, ring_degree=2,
    )  # fmt: skip


def told(make_outcome, *cells, options=IMAGE):
    return report_json(report(options, make_outcome(*cells)))


def rows(content, table="image_cells"):
    return content["tables"][table]["rows"]


def test_each_cell_stands_beside_its_published_configuration(flux, make_outcome):
    content = told(make_outcome, flux([22.0, 22.4], 7500.0), flux([15.0, 15.2], 9000.0, ulysses=2))
    one, two = rows(content)
    assert (one["gpu"], one["beside"], one["gpus"], one["batch"]) == ("H100", "H100", 1, 2)
    assert one["batch_s"] == pytest.approx(22.2), "a batch, not an image"
    assert (one["published_batch_s"], one["published_energy_per_image_j"]) == ONE_H100
    assert one["seconds_ratio"] == pytest.approx(22.2 / ONE_H100[0])
    assert one["energy_per_image_j"] == pytest.approx(7500.0)
    assert one["joules_ratio"] == pytest.approx(7500.0 / ONE_H100[1])
    assert (two["gpus"], two["ulysses"], two["ring"]) == (2, 2, 1)
    assert (two["published_batch_s"], two["published_energy_per_image_j"]) == TWO_H100
    assert not one["doubts"] and not two["doubts"]
    # The interval of ours, as a share: t of one degree of freedom, 12.706, times 0.2.
    half = 12.706 * 0.2
    assert one["batch_s_ci95_high"] == pytest.approx(22.2 + half, rel=1e-3)
    assert one["seconds_ratio_ci95_low"] == pytest.approx((22.2 - half) / ONE_H100[0], rel=1e-3)


def test_ulysses_and_ring_are_not_exchanged(flux, make_outcome):
    by_ring, by_ulysses = rows(told(make_outcome, *[flux([15.0, 15.0], 1.0, *d) for d in ((1, 2), (2, 1))]))
    assert by_ring["published_batch_s"] == 14.823776 and by_ulysses["published_batch_s"] == TWO_H100[0]


def test_models_are_summed_up_by_geometric_means(flux, failed, make_outcome):
    half, double = (factor * ONE_H100[0] for factor in (0.5, 2.0))
    cells = [
        flux([half, half], 2 * ONE_H100[1]),
        flux([2 * 44.810995] * 2, None, batch=4),
        flux([double, double], TWO_H100[1], ulysses=2),
        failed,
    ]
    content = told(make_outcome, *cells)
    found = {row["gpus"]: row for row in rows(content, "image_models") if row["gpu"] == "H100"}
    assert found[1]["seconds_ratio"] == pytest.approx(math.sqrt(0.5 * 2.0))
    assert (found[1]["seconds_least"], found[1]["seconds_most"]) == (pytest.approx(0.5), pytest.approx(2))
    assert (found[1]["cells"], found[1]["measured"], found[1]["compared"]) == (2, 2, 2)
    assert (found[2]["cells"], found[2]["measured"], found[2]["compared"]) == (2, 1, 1)
    assert found[1]["joules_ratio"] == pytest.approx(2.0), "of the cell that has joules"
    assert found[2]["seconds_ratio"] == pytest.approx(double / TWO_H100[0])
    assert "3 of 4 cells have a result; published figures are those of H100." in content["summary"][0]
    ratio = (0.5 * 2 * double / TWO_H100[0]) ** (1 / 3)
    assert f"Seconds a batch: {ratio:.4g} times the published ones" in content["summary"][1]
    assert "of 3 cells (0.5 to 3.049)" in content["summary"][1]
    assert "Joules an image: 1.414 times" in content["summary"][2] and "of 2 cells" in content["summary"][2]


def test_what_failed_is_a_gap_beside_the_published_figures(flux, failed, make_outcome):
    content = told(make_outcome, flux([22.0, 22.0], 7500.0), failed)
    gap = rows(content)[1]
    assert gap["batch_s"] is None and gap["seconds_ratio"] is None and gap["published_batch_s"] == 14.823776
    assert gap["reasons"]["seconds_ratio"] == "out of memory on GPU 0"
    made = report(IMAGE, make_outcome(flux([22.0, 22.0], 7500.0), failed))
    [cells] = [table for table in made.tables if table.name == "image_cells"]
    assert "out of memory on GPU 0" in csv_text(cells).splitlines()[2]


def test_what_was_not_published_has_no_ratio(flux, make_outcome):
    [row] = rows(told(make_outcome, flux([11.0, 11.0], 7000.0, batch=1)))
    assert row["batch_s"] == pytest.approx(11.0) and row["seconds_ratio"] is None
    assert row["reasons"]["seconds_ratio"].startswith("not among the published configurations")
    [on_b200] = rows(told(make_outcome, flux([11.0, 11.0], 7000.0, batch=1, gpu=B200)))
    assert (on_b200["beside"], on_b200["published_batch_s"]) == ("B200", 7.754933)


def test_another_gpu_is_compared_with_a_doubt(flux, failed, make_outcome):
    content = told(make_outcome, flux([20.0, 20.0], 7000.0, gpu=H200), failed)
    row, gap = rows(content)
    assert (row["gpu"], row["beside"], gap["beside"]) == ("H200", "H100", "H100")
    assert row["seconds_ratio"] == pytest.approx(20 / ONE_H100[0])
    assert row["doubts"]["seconds_ratio"] == ["measured on H200, published on H100"]
    chosen = MlEnergyV3Options(parts=("image",), beside="B200")
    [row] = rows(told(make_outcome, flux([20.0, 20.0], 7000.0, gpu=H100), options=chosen))
    assert row["seconds_ratio"] == pytest.approx(20 / ONE_B200[0])
    assert row["doubts"]["joules_ratio"] == ["measured on H100, published on B200"]


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"optimizations": Optimizations(compile_mode="regional")}, "measured compiled (regional),"),
        ({"optimizations": Optimizations(quantization="fp8-dynamic")}, "measured quantized (fp8-dynamic),"),
        ({"dtype": "float16"}, "measured in float16, published in bfloat16"),
        ({"engine": "diffusers"}, "measured with the diffusers engine"),
        ({"power_limit_w": 400.0}, "measured with a power limit of 400 W"),
    ],
)  # fmt: skip
def test_other_settings_make_a_ratio_doubtful(flux, make_outcome, changes, doubt):
    [row] = rows(told(make_outcome, flux([20.0, 20.0], 7000.0, **changes)))
    assert row["seconds_ratio"] is not None and row["doubts"]["seconds_ratio"][0].startswith(doubt)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"steps": 28}, "not the published work: 28 steps, published 50"),
        ({"height_px": 512}, "not the published work: 1024x512 px, published 1024x1024"),
        ({"device": "cpu"}, "not the published work: it ran on NVIDIA H100"),
    ],
)
def test_other_work_is_not_compared(flux, make_outcome, changes, reason):
    content = told(make_outcome, flux([20.0, 20.0], 7000.0, **changes))
    [row] = rows(content)
    assert row["seconds_ratio"] is None and row["reasons"]["seconds_ratio"].startswith(reason)
    assert "image_best" not in content["tables"] and not content["charts"]


def test_the_best_is_that_of_the_cells_that_both_have(flux, make_outcome):
    cells = [
        flux([22.0, 22.0], 7500.0),
        flux([14.0, 14.0], 8000.0, ulysses=2),
        flux([16.0, 16.0], 6000.0, ring=2),
        flux([1.0, 1.0], 1.0, batch=1),  # not published of this GPU
    ]
    joules, seconds = rows(told(make_outcome, *cells), "image_best")
    assert (joules["aim"], joules["cells"]) == ("least J/image", 3)
    assert joules["ours_set_up"] == "2 GPUs, Ulysses 1 × ring 2, batch 2"
    assert joules["published_set_up"] == "1 GPU, Ulysses 1 × ring 1, batch 2"
    assert (joules["ours"], joules["published"]) == (pytest.approx(6000), ONE_H100[1])
    assert joules["ratio"] == pytest.approx(6000 / ONE_H100[1])
    assert seconds["ours_set_up"] == "2 GPUs, Ulysses 2 × ring 1, batch 2"
    assert (seconds["ours"], seconds["published"]) == (pytest.approx(14), 14.823776)


def test_hardware_and_versions_are_told_apart(flux, make_outcome):
    other = {**ENVIRONMENT, "versions": {**ENVIRONMENT["versions"], "torch": "2.14.0"}}
    cells = [flux([22.0, 22.0], 7500.0), flux([15.0, 15.0], 1.0, 2, weights="random", environment=other)]
    found = {row["what"]: row for row in rows(told(make_outcome, *cells), "differences")}
    assert (found["GPU"]["ours"], found["GPU"]["published"], found["GPU"]["same"]) == ("H100", "H100", True)
    assert found["xDiT (xfuser)"]["ours"] == "0.7.0" and found["xDiT (xfuser)"]["published"] == "0.4.5"
    assert found["xDiT (xfuser)"]["same"] is False and found["dtype"]["same"] is True
    assert found["torch"]["ours"] == "2.13.0, 2.14.0" and found["torch"]["same"] is None
    assert found["torch"]["reasons"]["published"] == "not published"
    assert found["weights"]["ours"] == "pretrained, random" and found["power limit, W"]["ours"] == "700"


def test_charts_lie_on_the_axes_of_both(flux, make_outcome):
    charts = told(make_outcome, flux([22.0, 22.0], 7500.0), flux([1.0, 1.0], 1.0, batch=1))["charts"]
    assert charts["image_seconds"][FLUX]["points"] == [[ONE_H100[0], pytest.approx(22.0)]]
    assert charts["image_joules"][FLUX]["points"] == [[ONE_H100[1], pytest.approx(7500.0)]]


def runs_of(**options):
    [sweep] = sweeps(MlEnergyV3Options(parts=("image",), **options))
    return sweep.content["list"]


def test_every_model_batch_and_product_runs_as_it_was_published():
    runs = runs_of()
    keys = {(r["model_id"], r["batch_size"], r["ulysses_degree"], r["ring_degree"]) for r in runs}
    published = published_runs("text-to-image")
    assert {(p.model_id, p.batch_size, p.ulysses, p.ring) for p in published} <= keys
    assert len(runs) == len(keys) == 366 and len({key[0] for key in keys}) == 7
    by_model = {p.model_id: p for p in published}
    for run in runs:
        one = by_model[run["model_id"]]
        wanted = (one.steps, one.height_px, one.width_px, one.dtype)
        assert (run["inference_steps"], run["height"], run["width"], run["dtype"]) == wanted
    assert len(runs_of(published_only=True)) == 309


def test_fewer_runs_by_gpus_batches_and_models():
    assert {r["ulysses_degree"] * r["ring_degree"] for r in runs_of(max_gpus=2)} == {1, 2}
    assert {r["batch_size"] for r in runs_of(batches=(1, 4))} == {1, 4}
    assert len(runs_of(models=(FLUX,))) == 6 * 10
    quick = runs_of(quick=True)
    assert len(quick) == 7 * 2 and {r["batch_size"] for r in quick} == {1}


def test_a_stand_in_is_of_the_same_family():
    runs = runs_of(stand_ins=True, models=(FLUX, PIXART), quick=True)
    assert [r["model_id"] for r in runs] == ["tiny/pixart-sigma"] * 2 + ["tiny/flux"] * 2
    assert all("inference_steps" not in run and run["weights"] is None for run in runs)


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (("black-forest-labs/FLUX.1-dv",), "published of .* did you mean black-forest-labs/FLUX.1-dev"),
        (("tiny/flux",), "nothing was published of tiny/flux"),
    ],
)  # fmt: skip
def test_models_without_published_figures_are_refused(models, says):
    with pytest.raises(UserError, match=says):
        runs_of(models=models)


WAN = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
VIDEO = MlEnergyV3Options(parts=("video",), models=(WAN,))


def test_videos_run_with_the_frames_that_were_published():
    [sweep] = sweeps(VIDEO)
    runs = sweep.content["list"]
    assert sweep.name == "video" and sweep.content["common"]["dataset"] == "bundled-videos"
    keys = {(r["batch_size"], r["ulysses_degree"], r["ring_degree"]) for r in runs}
    published = [p for p in published_runs("text-to-video") if p.model_id == WAN]
    assert {(p.batch_size, p.ulysses, p.ring) for p in published} <= keys
    for run in runs:
        assert (run["workload"], run["num_frames"], run["height"], run["width"]) == (
            "text-to-video",
            81,
            480,
            832,
        )
        assert (run["inference_steps"], run["dtype"]) == (50, "bfloat16")


def test_videos_stand_beside_published_videos(make_cell, make_outcome):
    cell = make_cell(
        "out of memory on GPU 0", sweep="video", model_id=WAN, batch_size=2, ulysses_degree=1, ring_degree=1
    )
    content = told(make_outcome, cell, options=MlEnergyV3Options(parts=("video",), beside="B200"))
    [row] = rows(content, "video_cells")
    assert row["published_batch_s"] == 147.622864 and row["published_energy_per_video_j"] == 65366.14725
    assert row["reasons"]["energy_per_video_j"] == "out of memory on GPU 0"
    assert row["size"] == "81 of 832x480"
    assert "image_cells" not in content["tables"]


@pytest.mark.parametrize(("frames", "is_compared"), [(81, True), (49, False)])
def test_seconds_and_joules_of_a_video(make_cell, make_outcome, frames, is_compared):
    settings = {"batch_size": 2, "device_name": B200, "num_frames": frames, "parallel": Parallelism()}
    cell = make_cell(
        result([140.0, 140.0], [120_000.0, 120_000.0], video=True, **settings),
        sweep="video", model_id=WAN, batch_size=2, ulysses_degree=1, ring_degree=1,
    )  # fmt: skip
    [row] = rows(told(make_outcome, cell, options=VIDEO), "video_cells")
    assert row["size"].startswith(f"{frames} of ")
    assert row["batch_s"] == pytest.approx(140) and row["energy_per_video_j"] == pytest.approx(60_000)
    if is_compared:
        assert row["seconds_ratio"] == pytest.approx(140 / 147.622864)
        assert row["joules_ratio"] == pytest.approx(60_000 / 65366.14725)
    else:
        assert row["seconds_ratio"] is None
        assert row["reasons"]["seconds_ratio"] == "not the published work: 49 frames, published 81"


def test_models_that_this_version_does_not_run_are_named(make_outcome, monkeypatch):
    monkeypatch.delitem(BY_ID, WAN)
    [line] = [one for one in told(make_outcome, options=VIDEO)["summary"] if "not run by this version" in one]
    assert line.startswith("Text to video: published, but") and WAN in line
    with pytest.raises(UserError, match="this version does not run it; leave it out"):
        next(sweeps(VIDEO))


def test_hunyuan_video_has_the_id_of_its_files():
    assert "hunyuanvideo-community/HunyuanVideo" in {run.model_id for run in published_runs("text-to-video")}
