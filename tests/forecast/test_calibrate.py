"""Constants from own results: what can be used, what is left out, and a forecast by them."""

import json
from dataclasses import replace

import pytest
import result_samples as samples
from result_folders import result, save

from mlenergy.diffusion.cli import main
from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.forecast.cards import card_named
from mlenergy.diffusion.forecast.formula import power_of, times_of
from mlenergy.diffusion.forecast.own_runs import own_runs
from mlenergy.diffusion.forecast.predict import forecast_of, read_fitted
from mlenergy.diffusion.forecast.work import work_of
from mlenergy.diffusion.measure.samples import GpuEnergy, NodeEnergy, WindowEnergy
from mlenergy.diffusion.models.architectures.reader import find_architecture
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.prompts.sampling import PromptOptions, sample_requests
from mlenergy.diffusion.results.build import RunRecord, build_result

MODELS = ("black-forest-labs/FLUX.1-dev", "stabilityai/stable-diffusion-3.5-large")
SLOWER = 1.25  # this machine, against the published one


def plan_on_h200(model_id, batch, ulysses, **changes):
    changes |= {"parallel": Parallelism(ulysses=ulysses), "batch_size": batch, "steps": 20}
    return replace(samples.make_plan(spec=BY_ID[model_id]), **changes)


def write(folder, plan):
    """A result with the formula's seconds and joules, by H100's constants, on a slower machine."""
    model = find_architecture(plan.spec.model_id, None)
    card, fitted = card_named("H200"), read_fitted()
    times = times_of(work_of(plan, model, costs_of(model)), card, fitted.time["H100"])
    watts = power_of(times, card, fitted.power["H100"])
    seconds, ranks = SLOWER * times.duration_s, plan.parallel.world_size
    gpus = tuple(GpuEnergy("a", f"GPU-{k}", "NVIDIA H200", watts * seconds) for k in range(ranks))
    node = NodeEnergy("a", ranks * watts * seconds, cpu_package_j=None, dram_j=None)
    energy = WindowEnergy("nvml_counter", None, gpus, (node,))
    measured = samples.gpu_measurement()
    windows = tuple(
        replace(one, duration_s=seconds, images=plan.batch_size, energy=energy, stages=None)
        for one in measured.iterations[:2]
    )
    measured = replace(measured, iterations=windows, memory=measured.memory[:1] * ranks)
    prompts = sample_requests(PromptOptions.from_plan(plan), 2 * plan.batch_size, plan.seed, plan.batch_size)
    content = build_result(
        RunRecord(plan, measured, prompts, samples.ENVIRONMENT), [None] * 2 * plan.batch_size
    )
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(
        json.dumps(content | {"effects_pending": False, "effects_failed": []})
    )


@pytest.fixture
def mlenergy(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr("sys.argv", ["mlenergy", *map(str, words)])
        return main(), capsys.readouterr()

    return run


def test_own_runs_make_constants_and_a_forecast_by_them(tmp_path, mlenergy):
    for model_id in MODELS:
        for batch in (1, 2, 4):
            for ulysses in (1, 2):
                write(
                    tmp_path / "runs" / f"{model_id[-4:]}-{batch}-{ulysses}",
                    plan_on_h200(model_id, batch, ulysses),
                )
    compiled = plan_on_h200(MODELS[0], 1, 1, optimizations=Optimizations(compile_mode="regional"))
    write(tmp_path / "runs" / "compiled", compiled)
    out = tmp_path / "own.json"
    code, shown = mlenergy("calibrate", tmp_path / "runs", "--out", out)
    assert code == 0, shown.err
    assert "left out: compiled: no time can be forecast with --use_torch_compile" in shown.out
    content = json.loads(out.read_text())
    assert content["runs"] == 12 and list(content["time"]) == ["H200"]
    plan = plan_on_h200(MODELS[0], 8, 1)
    published, own = forecast_of(plan, "H200"), forecast_of(plan, "H200", read_fitted(out))
    assert published.basis == "gpus" and own.basis == "runs" and own.source.startswith("12 runs in")
    model = find_architecture(MODELS[0], None)
    true = times_of(work_of(plan, model, costs_of(model)), card_named("H200"), read_fitted().time["H100"])
    assert own.duration_s.value == pytest.approx(SLOWER * true.duration_s, rel=0.05)
    code, shown = mlenergy(
        *("plan", "--gpu", "H200", "--calibration", out, "--json", "workload:t2i"),
        *("--workload.model_id", MODELS[0], "--workload.batch_size", "8", "--workload.inference_steps", "20"),
    )
    assert json.loads(shown.out)["forecast"]["duration_s"]["value"] == pytest.approx(own.duration_s.value)


def test_own_videos_are_read(tmp_path):
    """Batches of four videos, of 2.5 s and 1250 J each."""
    save(tmp_path / "runs" / "video", result((8.0, 12.0), (6000.0, 4000.0), video=True))
    found = own_runs(tmp_path / "runs")
    assert found.left_out == []
    (row,) = found.rows
    assert (row.duration_s, row.energy_j) == (pytest.approx(4 * 2.5), pytest.approx(4 * 1250))
    assert row.work.video_pixels > 0 and row.work.images == 0 and row.work.decoding_gpus == 1


def test_too_few_runs_are_one_line(tmp_path, mlenergy):
    code, shown = mlenergy("calibrate", tmp_path / "none")
    assert (
        code == 2
        and shown.err == f"mlenergy: error: there is no folder {tmp_path}/none; name one that holds results\n"
    )
    write(tmp_path / "runs" / "one", plan_on_h200(MODELS[0], 1, 1))
    code, shown = mlenergy("calibrate", tmp_path / "runs")
    assert code == 2 and "holds 1 runs that constants can be fitted to; 10 are the least" in shown.err
    assert shown.err.count("\n") == 1
