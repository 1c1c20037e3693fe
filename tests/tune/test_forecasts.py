"""Forecasts of candidates: the order of measuring, and how far off they were."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from tune_bench import H200, Bench, measured, space_of

from mlenergy.diffusion.forecast.predict import Interval, forecast_of
from mlenergy.diffusion.measure.starts import StartSummary
from mlenergy.diffusion.tune.forecasts import Expected, expected_of, places_of
from mlenergy.diffusion.tune.machine import Machine
from mlenergy.diffusion.tune.record import SearchSetup, record
from mlenergy.diffusion.tune.search import Limits, search
from mlenergy.diffusion.tune.space import SearchSpace
from mlenergy.diffusion.tune.trials import Trial

H100 = Machine("cuda", "NVIDIA H100 80GB HBM3", 2, 80.0)
PLAIN = ["--attention_backends", "cudnn", "--compile", "off"]
LIMITS = Limits(budget_s=1e6, rounds=2, tolerance=0.001, first_iters=3)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return space_of(
        [*PLAIN, "--batch_sizes", "1", "4", "--degrees", "ulysses=2", "ring=2", "ulysses=1"], H100
    )


def of(seconds: float, joules: float | None) -> Expected:
    energy = None if joules is None else Interval(joules, joules, joules)
    forecast: Any = None
    return Expected(Interval(seconds, seconds, seconds), energy, (), forecast)


def test_the_fastest_and_the_most_sparing_go_first() -> None:
    slow_and_hungry, fast, middle, sparing = of(9, 900), of(1, 400), of(2, 300), of(8, 100)
    assert places_of([slow_and_hungry, fast, middle, sparing, None]) == [3, 0, 1, 0, 4]
    assert places_of([of(3, None), None, of(1, None), None]) == [1, 2, 0, 3]


def test_a_forecast_is_of_one_image_and_of_the_settings_run_eagerly(space: SearchSpace) -> None:
    four = next(one for one in space.candidates if one.plan.batch_size == 4)
    expected = four.expected
    assert isinstance(expected, Expected) and expected.differs == ()
    own = replace(four.plan, optimizations=replace(four.plan.optimizations, attention="auto"))
    found = forecast_of(own, "H100")
    assert expected.seconds.value == pytest.approx(found.duration_s.value / 4)
    assert expected.seconds.high == pytest.approx(found.duration_s.high / 4)
    assert expected.joules == found.energy_per_output_j
    compiled = replace(own.optimizations, compile_mode="regional", attention="math")
    other = expected_of(replace(own, optimizations=compiled, power_limit_w=400.0))
    assert isinstance(other, Expected) and other.seconds == expected.seconds
    assert other.differs == ("compilation (regional)", "math attention", "a limit of 400 W")
    fp8 = expected_of(replace(own, optimizations=replace(own.optimizations, quantization="fp8-dynamic")))
    assert isinstance(fp8, str) and "--quantization" in fp8


def test_candidates_are_measured_in_the_order_of_their_forecasts(space: SearchSpace) -> None:
    expected = [one.expected for one in space.candidates]
    seconds = [one.seconds.value for one in expected if isinstance(one, Expected)]
    joules = [one.joules.value for one in expected if isinstance(one, Expected) and one.joules is not None]
    assert len(seconds) == len(joules) == 6
    assert seconds[0] == min(seconds) and joules[1] == min(joules)
    ranks = [
        min(sorted(seconds).index(s), sorted(joules).index(j)) for s, j in zip(seconds, joules, strict=True)
    ]
    assert ranks == sorted(ranks)


def test_on_a_processor_guesses_make_the_order() -> None:
    found = space_of(["--degrees", "ulysses=1", "--batch_sizes", "1"], Machine("cpu", "Example CPU 9000", 1))
    assert found.forecast_reason == "forecasts are of GPUs, and this is Example CPU 9000"


def searched(space: SearchSpace, factors: list[float]) -> dict[str, Any]:
    """The record of a search in which the candidates take so many times their forecasts."""
    truth = {}
    for one, factor in zip(space.candidates, factors, strict=True):
        assert isinstance(one.expected, Expected) and one.expected.joules is not None
        truth[one.number] = (factor * one.expected.seconds.value, 2 * factor * one.expected.joules.value)
    trials = [Trial(one) for one in space.candidates]
    bench = Bench(truth)
    search(trials, LIMITS, bench.start, bench.elapsed_s)
    setup = SearchSetup("black-forest-labs/FLUX.1-dev", "mlenergy tune", "run/tune/flux", H100, LIMITS, space)
    return record(setup, trials, bench.now_s, "settled")


def test_the_record_tells_how_far_off_the_forecasts_were(space: SearchSpace) -> None:
    factors = [1.0, 1.02, 0.97, 1.1, 2.0, 1.05]
    known = searched(space, factors)
    ratios = [entry["forecast"]["seconds_ratio"] for entry in known["candidates"]]
    assert ratios == pytest.approx(factors)
    assert [e["forecast"]["joules_ratio"] for e in known["candidates"]] == pytest.approx(
        [2 * f for f in factors]
    )
    seconds, joules = known["forecast"]["seconds"], known["forecast"]["joules"]
    assert (seconds["count"], seconds["within"], joules["within"]) == (6, 5, 0)
    assert seconds["median_ratio"] == pytest.approx(1.035)
    assert (seconds["least_ratio"], seconds["most_ratio"]) == (pytest.approx(0.97), pytest.approx(2.0))
    assert joules["median_ratio"] == pytest.approx(2.07)
    assert (known["forecast"]["gpu"], known["forecast"]["basis"]) == ("H100", "runs")
    # Spearman's by hand: 1 - 6 Σ d² ÷ (n (n² - 1)), without ties.
    entries = [
        (e["forecast"]["seconds_per_image"]["value"], e["seconds_per_image"]["mean"])
        for e in known["candidates"]
    ]
    forecasts, measured_s = (sorted(one) for one in zip(*entries, strict=True))
    squares = sum((forecasts.index(f) - measured_s.index(m)) ** 2 for f, m in entries)
    assert squares > 0
    assert seconds["rank_correlation"] == pytest.approx(1 - 6 * squares / (6 * 35))


def test_without_runs_there_is_no_correlation(space: SearchSpace) -> None:
    trials = [Trial(one) for one in space.candidates]
    setup = SearchSetup("black-forest-labs/FLUX.1-dev", "mlenergy tune", "run/tune/flux", H100, LIMITS, space)
    known = record(setup, trials, 0.0, "dry run")
    assert (
        known["forecast"]["seconds"] is None and known["candidates"][0]["forecast"]["seconds_ratio"] is None
    )
    trials[0].starts = [measured(StartSummary(3, 3.0, 0.1), None, 9.0, 12.0, reason="a GPU was lost")]
    known = record(setup, trials, 12.0, "budget")
    seconds = known["forecast"]["seconds"]
    assert seconds["count"] == 1 and seconds["rank_correlation"] is None
    assert seconds["rank_correlation_reason"] == "fewer than 3 candidates have both figures"
    assert known["forecast"]["joules"] is None


def test_compiled_candidates_have_a_ratio_but_do_not_count() -> None:
    both = space_of(
        [
            "--attention_backends",
            "cudnn",
            "--compile",
            "off",
            "on",
            "--batch_sizes",
            "1",
            "--degrees",
            "ulysses=1",
        ],
        H200,
    )
    trials = [Trial(one) for one in both.candidates]
    for trial, factor in zip(trials, (1.0, 0.5), strict=True):
        assert isinstance(trial.candidate.expected, Expected)
        figure = StartSummary(3, factor * trial.candidate.expected.seconds.value, 0.01)
        trial.starts = [measured(figure, None, 9.0, 12.0, reason="none")]
    setup = SearchSetup("black-forest-labs/FLUX.1-dev", "mlenergy tune", "x", H200, LIMITS, both)
    known = record(setup, trials, 24.0, "settled")
    assert [entry["forecast"]["seconds_ratio"] for entry in known["candidates"]] == pytest.approx([1.0, 0.5])
    assert known["candidates"][1]["forecast"]["differs"] == ["compilation (regional)"]
    assert known["forecast"]["seconds"]["count"] == 1
    assert known["forecast"]["extrapolated"] == ["extrapolated to H200 by its data sheet"]
    assert math.isclose(known["forecast"]["seconds"]["median_ratio"], 1.0)
