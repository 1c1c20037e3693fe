"""The study `mlperf-wan2.2`: what it runs, and its report on results with known latencies."""

from __future__ import annotations

import json

import pytest
from result_folders import result

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.studies.files import report_json, write_report
from mlenergy.diffusion.studies.mlperf_wan import STAND_IN, MlPerfWanOptions, check_prompts, report, sweeps
from mlenergy.diffusion.studies.mlperf_wan_report import MODEL, SETTINGS

# 100 queries of 101, 102, ... 199 and 300 s, not in this order, with 1000 J a second.
QUERIES = [300.0 if n == 27 else 101.0 + (37 * n) % 100 for n in range(100)]
RANDOM = MlPerfWanOptions(weights="random")


@pytest.fixture
def measured(make_cell):
    """A cell of one video at a time with these latencies, by these degrees."""

    def make(seconds, cfg=1, ulysses=1, ring=1, **changes):
        settings = {
            **{"spec": BY_ID[MODEL], "batch_size": 1, "height_px": 720, "width_px": 1280, "steps": 20},
            **{"guidance_scale": 4.0, "guidance_scale_2": 3.0, "boundary_ratio": 0.875},
            **{"parallel": Parallelism(cfg=cfg, ulysses=ulysses, ring=ring), **changes},
        }
        return make_cell(
            result(seconds, [1000 * one for one in seconds], video=True, **settings),
            sweep="ways", model_id=settings["spec"].model_id, **way(cfg, ulysses, ring),
        )  # fmt: skip

    return make


def way(cfg, ulysses, ring):
    guided = {"use_cfg_parallel": True} if cfg == 2 else {}
    return {"ulysses_degree": ulysses, "ring_degree": ring, **guided}


def told(make_outcome, *cells, options=RANDOM):
    return report_json(report(options, make_outcome(*cells)))


def rows(content, table):
    return content["tables"][table]["rows"]


def runs_of(**options):
    [sweep] = sweeps(MlPerfWanOptions(**{"weights": "random", **options}))
    return sweep.content["list"]


def test_percentiles_are_those_of_the_queries(measured, make_outcome):
    content = told(make_outcome, measured(QUERIES), measured([80.0] * 50, cfg=2, ulysses=2))
    one, four = rows(content, "latencies")
    assert (one["gpus"], one["cfg"], one["ulysses"], one["ring"], one["queries"]) == (1, 1, 1, 1, 100)
    assert one["latency_mean_s"] == pytest.approx(151.5) and one["latency_p50_s"] == pytest.approx(150.5)
    # The sorted queries' places 89.1 and 98.01, counted from 0.
    assert one["latency_p90_s"] == pytest.approx(190.1) and one["latency_p99_s"] == pytest.approx(
        199 + 0.01 * 101
    )
    assert one["latency_mean_s_ci95_low"] < 151.5 < one["latency_mean_s_ci95_high"]
    assert one["energy_per_video_j"] == pytest.approx(151_500)
    assert (four["gpus"], four["cfg"], four["ulysses"], four["latency_p90_s"]) == (4, 2, 2, pytest.approx(80))
    best = "Least 90th percentile: 80 s a video (mean 80 s, 50 queries), by 4 GPUs, CFG 2 × Ulysses 2."
    assert best in content["summary"]
    assert not any("Fewer queries" in line for line in content["summary"])
    assert [*content["charts"]["p90_over_gpus"]] == ["alone", "CFG and Ulysses"]
    assert content["charts"]["p90_over_gpus"]["CFG and Ulysses"]["points"] == [[4, 80.0]]


def test_it_is_marked_as_no_submission_everywhere(measured, make_outcome, tmp_path):
    made = report(RANDOM, make_outcome(measured([100.0] * 50)))
    head = {"study": "mlperf-wan2.2", "command": "mlenergy", "version": "1", "date": "today"}
    page = write_report(made, tmp_path / "out", head)
    for file in (page, page.with_name("report.txt")):
        text = file.read_text()
        assert "Not a submission to MLPerf, and not a result of it." in text
        assert "Latency of a query (not a submission)" in text and "not a submission</h1>" in page.read_text()
    content = json.loads(page.with_name("report.json").read_text())
    assert content["is_submission"] is False and "fixed initial latent" in str(content["not_a_submission"])
    assert "not a submission" in content["title"]


def test_the_bound_of_the_score_stands_there_as_not_measured(measured, make_outcome):
    content = told(make_outcome, measured([100.0] * 50))
    [row] = rows(content, "quality")
    assert (row["metric"], row["bound"], row["measured"]) == ("VBench", "69.7752", None), "not rounded"
    assert content["quality"]["bound"] == pytest.approx(0.99 * content["quality"]["reference"])
    assert row["reasons"]["measured"].startswith("not measured here")
    assert content["quality"]["measured"] is None and content["quality"]["bound"] == 69.7752


def test_settings_are_those_of_the_results(measured, make_outcome):
    as_asked = measured([100.0] * 50, dataset="VBench_full_info.json")
    found = {row["setting"]: row for row in rows(told(make_outcome, as_asked), "settings")}
    for name in (*SETTINGS, "model_id", "batch_size", "queries", "weights"):
        assert found[name]["same"] is True, name
    assert found["initial latent"]["same"] is False and found["load generator"]["same"] is False
    assert found["prompts"]["same"] is None and "not checked" in found["prompts"]["reasons"]["same"]
    other = measured([100.0] * 49, steps=40, guidance_scale_2=4.0, weights="random", num_frames=49, seed=7)
    content = told(make_outcome, other, options=MlPerfWanOptions(weights="random", set=("cache=fbcache",)))
    found = {row["setting"]: row for row in rows(content, "settings")}
    assert found["prompts"]["same"] is False, "bundled ones"
    differing = ("inference_steps", "guidance_scale_2", "weights", "num_frames", "seed", "queries")
    assert [found[name]["same"] for name in differing] == [False] * len(differing)
    assert (found["inference_steps"]["mlperf"], found["inference_steps"]["here"]) == ("20", "40")
    assert found["--set"]["here"] == "cache=fbcache"
    assert "Fewer queries than the 50 that MLPerf asks for: 49 in the shortest run." in content["summary"]


def test_a_tiny_model_has_random_weights_whatever_its_plan_says(measured, make_outcome):
    tiny = measured([1.0, 1.1], spec=BY_ID[STAND_IN])
    found = {row["setting"]: row for row in rows(told(make_outcome, tiny), "settings")}
    assert (found["weights"]["here"], found["weights"]["same"]) == ("random", False)


def test_what_did_not_run_is_a_gap(measured, make_cell, make_outcome):
    reason = "8 GPUs are needed, and there are 4"
    absent = make_cell(reason, sweep="ways", model_id=MODEL, **way(1, 8, 1))
    content = told(make_outcome, measured([100.0] * 50), absent)
    gap = rows(content, "latencies")[1]
    assert gap["gpus"] == 8 and gap["latency_p90_s"] is None and gap["queries"] is None
    assert gap["reasons"]["latency_p90_s"] == reason
    nothing = told(make_outcome, absent)
    assert {row["here"] for row in rows(nothing, "settings")[:12]} == {None}


def test_a_warning_of_the_times_makes_percentiles_doubtful(measured, make_outcome, make_cell):
    settings = {"spec": BY_ID[MODEL], "batch_size": 1, "warnings": [("drift", "the clocks fell")]}
    cell = make_cell(result([1.0, 2.0], video=True, **settings), sweep="ways", model_id=MODEL, **way(1, 2, 1))
    [row] = rows(told(make_outcome, cell), "latencies")
    assert row["doubts"]["latency_p99_s"] == ["the clocks fell"] == row["doubts"]["latency_mean_s"]


def test_every_product_of_the_modes_runs_on_every_number_of_gpus():
    runs = runs_of()
    products = [(2 if r.get("use_cfg_parallel") else 1, r["ulysses_degree"], r["ring_degree"]) for r in runs]
    assert len(set(products)) == len(products) == 1 + 3 + 5 + 7
    assert {cfg * ulysses * ring for cfg, ulysses, ring in products} == {1, 2, 4, 8}
    for run in runs:
        assert {name: run[name] for name in SETTINGS} == SETTINGS
        assert (run["model_id"], run["batch_size"], run["benchmark_iters"]) == (MODEL, 1, 50)
        assert (run["workload"], run["dataset"]) == ("text-to-video", "bundled-videos")
    assert [way(*p) for p in ((1, 4, 1), (2, 2, 1))] == [
        {name: value for name, value in run.items() if "degree" in name or "cfg" in name}
        for run in runs_of(gpu_counts=(4,), modes=("cfg", "ulysses"))
    ]
    quick = runs_of(quick=True)
    assert [(r["ulysses_degree"], r["benchmark_iters"]) for r in quick] == [(1, 2), (2, 2)]
    with pytest.raises(UserError, match="no product of the modes cfg makes 8 GPUs"):
        runs_of(gpu_counts=(8,), modes=("cfg",))


def test_vbench_prompts_come_from_the_users_file(tmp_path):
    with pytest.raises(UserError, match="takes VBench's prompts from your own file: --prompts"):
        next(sweeps(MlPerfWanOptions()))
    file = tmp_path / "VBench_full_info.json"
    file.write_text(json.dumps([{"prompt_en": f"prompt {n}"} for n in range(50)]))
    [sweep] = sweeps(MlPerfWanOptions(prompts=file))
    run = sweep.content["list"][0]
    assert (run["dataset"], run["prompt_column"], run["prompt_order"]) == (str(file), "prompt_en", "file")
    assert sweep.content["common"]["save_images"] is True, "VBench scores the videos"
    [noise] = sweeps(MlPerfWanOptions(prompts=file, weights="random"))
    assert noise.content["common"]["save_images"] is False and noise.content["list"][0]["dataset"] == str(
        file
    )
    check_prompts(MlPerfWanOptions(prompts=file), tmp_path)
    with pytest.raises(UserError, match="has 50 prompts, and each of 51 queries takes its own"):
        check_prompts(MlPerfWanOptions(prompts=file, queries=51), tmp_path)
    with pytest.raises(UserError, match="there is no file or folder"):
        check_prompts(MlPerfWanOptions(prompts=tmp_path / "absent.json"), tmp_path)


def test_the_stand_in_has_its_own_size_and_says_so(make_cell, make_outcome):
    run = runs_of(weights=None, stand_in=True, gpu_counts=(1,))[0]
    assert (run["model_id"], run["weights"], run["guidance_scale_2"]) == (STAND_IN, None, 3.0)
    assert "height" not in run and "num_frames" not in run and "inference_steps" not in run
    absent = make_cell("not run yet", sweep="ways", model_id=STAND_IN, **way(1, 1, 1))
    assert any("A tiny model stands in for" in line for line in told(make_outcome, absent)["summary"])
