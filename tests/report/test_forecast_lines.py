"""The summary's line on the forecast: as expected, slower with the stage, faster, or no line."""

from dataclasses import replace

import pytest
from result_samples import ENVIRONMENT, cpu_measurement, cpu_plan, gpu_measurement, make_plan, prompt_set

from mlenergy.diffusion.forecast.predict import forecast_of
from mlenergy.diffusion.report.forecast_lines import forecast_rows
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.results.build import RunRecord, build_result

H100 = "NVIDIA H100 80GB HBM3"


def result_of(plan, factor=1.0, decode=1.0):
    found = forecast_of(plan, plan.device_name)
    seconds = factor * found.duration_s.value
    parts = found.parts_s | {"vae_decode": decode * found.parts_s["vae_decode"]}
    measured = gpu_measurement()
    windows = tuple(replace(one, duration_s=seconds) for one in measured.iterations)
    measured = replace(measured, iterations=windows)
    result = build_result(RunRecord(plan, measured, prompt_set(plan), ENVIRONMENT), [None] * 16)
    return result | {"stages": {f"{name}_s": {"mean": value} for name, value in parts.items()}}


@pytest.fixture
def plan():
    return make_plan(device_name=H100)


def test_as_forecast(plan):
    ((label, text),) = forecast_rows(result_of(plan, 1.05))
    found = forecast_of(plan, H100).duration_s
    assert label == "forecast" and text.startswith(
        f"as forecast: {number(1.05 * found.value)} s an iteration, {number(found.value)} were forecast "
        f"({number(found.low)} to {number(found.high)})"
    )


def test_slower_names_the_stage_and_the_published_run(plan):
    rows = forecast_rows(result_of(plan, 1.5, decode=8))
    assert rows[0][1].startswith("1.5 times the forecast: ") and "most of it in the VAE: " in rows[0][1]
    assert rows[1][0] == "published" and "ML.ENERGY leaderboard v3" in rows[1][1]


def test_faster(plan):
    ((_, text),) = forecast_rows(result_of(plan, 0.5))
    assert text.startswith("faster than forecast, 0.5 times: ")


def test_joules_beside_their_forecast(plan):
    joules = forecast_of(plan, H100).energy_per_output_j
    for factor, verdict in (
        (1.02, "as forecast"),
        (2.0, "2 times the forecast"),
        (0.5, "0.5 times the forecast"),
    ):
        ((_, text),) = forecast_rows(result_of(plan) | {"energy_per_image_j": factor * joules.value})
        interval = f"{number(joules.low)} to {number(joules.high)}"
        assert text.endswith(f"; joules {verdict} ({number(joules.value)} per image, {interval})")
    ((_, text),) = forecast_rows(result_of(plan) | {"energy_per_image_j": None})
    assert "joules" not in text


def test_no_line_where_no_forecast_can_be_made(plan):
    compiled = replace(plan, optimizations=replace(plan.optimizations, compile_mode="regional"))
    result = result_of(plan)
    assert (
        forecast_rows(result | {"configuration": result["configuration"] | {"device_name": "NVIDIA X"}}) == []
    )
    measured = gpu_measurement()
    result = build_result(RunRecord(compiled, measured, prompt_set(plan), ENVIRONMENT), [None] * 16)
    assert forecast_rows(result) == []
    on_cpu = cpu_plan()
    result = build_result(RunRecord(on_cpu, cpu_measurement(), prompt_set(on_cpu), ENVIRONMENT), [None] * 4)
    assert forecast_rows(result) == []
