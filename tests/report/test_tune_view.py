"""The report of a search, as text: figures by a formula, everything else as it really is made."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console, RenderableType
from tune_bench import H200, Bench, measured, space_of

from mlenergy.diffusion.measure.starts import StartSummary
from mlenergy.diffusion.report.tune_view import render, render_space
from mlenergy.diffusion.tune.record import SearchSetup, record
from mlenergy.diffusion.tune.search import Limits, search
from mlenergy.diffusion.tune.space import SearchSpace
from mlenergy.diffusion.tune.trials import Failed, Measured, Trial

LIMITS = Limits(budget_s=170, rounds=3, tolerance=0.001, first_iters=3)
SECONDS = StartSummary(3, 0.5, 0.01)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    words = ["--degrees", "ulysses=2", "pipefusion=2", "ulysses=1", "--batch_sizes", "1", "2", "4"]
    return space_of([*words, "--attention_backends", "cudnn", "--compile", "off", "on", "--approximate"])


def setup_of(space: SearchSpace) -> SearchSetup:
    model = "black-forest-labs/FLUX.1-dev"
    return SearchSetup(model, "mlenergy tune …", "run/tune/flux", H200, LIMITS, space)


def text_of(report: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160, highlight=False, markup=False).print(report, crop=False)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def test_a_front_with_everything_around_it(space: SearchSpace, golden) -> None:  # type: ignore[no-untyped-def]
    truth = {1: (0.5, 300.0), 2: (0.505, 302.0), 4: (1.0, 200.0), 5: (2.5, 900.0), 6: (0.4, 450.0)}
    bench, trials = Bench(truth, scatter=0.004), [Trial(one) for one in space.candidates]
    ended = search(trials, LIMITS, bench.start, bench.elapsed_s)
    assert ended == "budget"
    warned = next(one for one in trials if one.candidate.number == 6)
    warned.starts[0] = dataclasses.replace(warned.starts[0], warnings=("windows are short",))
    known = record(setup_of(space), trials, bench.now_s, ended)
    states = {entry["state"] for entry in known["candidates"]}
    assert states == {"front", "undecided", "dominated", "failed", "not measured"}
    golden("tune_front.txt", text_of(render(known)))


def test_without_joules(space: SearchSpace, golden) -> None:  # type: ignore[no-untyped-def]
    trials = [Trial(one) for one in space.candidates[:2]]
    for one, seconds in zip(trials, (SECONDS, StartSummary(3, 0.7, 0.01)), strict=True):
        start = measured(seconds, None, 2.0, 12.0, reason="no GPU takes part in this run")
        one.starts = [dataclasses.replace(start, peak_memory_bytes=None, peak_memory_reason="it is a CPU")]
    known = record(setup_of(space), trials, 24.0, "stopped by SIGTERM; the same command continues")
    assert known["objectives"] == ["seconds_per_image"]
    assert [entry["joules_per_image"] for entry in known["candidates"]] == [None, None]
    assert [entry["state"] for entry in known["candidates"]] == ["front", "dominated"]
    golden("tune_seconds.txt", text_of(render(known)))


def test_what_has_no_joules_is_not_compared_with_what_has(space: SearchSpace) -> None:
    trials = [Trial(one) for one in space.candidates[:2]]
    trials[0].starts = [measured(SECONDS, StartSummary(3, 200.0, 1.0), 2.0, 12.0)]
    trials[1].starts = [measured(StartSummary(3, 0.1, 0.01), None, 2.0, 12.0, reason="a GPU was lost")]
    known = record(setup_of(space), trials, 24.0, "settled")
    assert [entry["state"] for entry in known["candidates"]] == ["front", "not comparable"]
    assert "a GPU was lost" in text_of(render(known))


def test_what_is_not_exact_is_named(space: SearchSpace) -> None:
    trial = next(Trial(one) for one in space.candidates if one.plan.parallel.pipefusion == 2)
    trial.starts = [measured(SECONDS, None, 2.0, 12.0, reason="a GPU was lost")]
    known = record(setup_of(space), [trial], 24.0, "settled")
    report = text_of(render(known))
    [lossy] = known["candidates"][0]["settings"]["lossy"]
    assert lossy == "PipeFusion with 2 patches: 27 of 28 steps use activations of the step before"
    assert "; not exact:" in report and "2 patches" not in known["candidates"][0]["label"]
    reason = "no time can be forecast with PipeFusion parallelism: no run behind it uses it"
    assert known["candidates"][0]["forecast_reason"] == reason


def test_many_that_are_alike_are_counted(space: SearchSpace) -> None:
    trials = [Trial(one) for one in space.candidates[:5]]
    for one in trials:
        one.starts = [measured(SECONDS, StartSummary(3, 200.0, 1.0), 2.0, 12.0)]
    report = text_of(render(record(setup_of(space), trials, 60.0, "rounds")))
    assert report.count("not vs. 4 others") == 5


def test_a_candidate_that_scatters_more_than_the_rest_is_named(space: SearchSpace) -> None:
    trials = [Trial(one) for one in space.candidates[:5]]
    for one in trials:
        again = StartSummary(6, 2.5 if one is trials[2] else 0.501 + 0.001 * one.candidate.number, 0.01)
        one.starts = [measured(start, StartSummary(3, 200.0, 1.0), 2.0, 12.0) for start in (SECONDS, again)]
    report = text_of(render(record(setup_of(space), trials, 60.0, "rounds")))
    assert "over all candidates but #3, which scatter more)" in report


def test_a_dry_run(space: SearchSpace, golden) -> None:  # type: ignore[no-untyped-def]
    known = record(setup_of(space), [Trial(one) for one in space.candidates], 0.0, "dry run")
    golden("tune_dry_run.txt", text_of(render_space(known)))


def start_of(seconds: float, joules: float | None = 200.0) -> Measured:
    of_joules = None if joules is None else StartSummary(3, joules, joules / 1000)
    return measured(StartSummary(3, seconds, seconds / 1000), of_joules, 2.0, 12.0)


@pytest.mark.parametrize(
    ("starts", "doubts"),
    [
        # Two starts of each, far apart in both objectives.
        ([[(1.0, 300.0)] * 2, [(2.0, 200.0)] * 2], []),
        ([[(1.0, 300.0)] * 2, []], ["1 of 2 candidates were never measured"]),
        ([[(1.0, 300.0)] * 2, [], [], []], ["3 of 4 candidates were never measured"]),
        (
            [[(1.0, 300.0)], []],
            ["1 of 2 candidates were never measured", "scatter between starts is not known"],
        ),
        ([[(1.0, 300.0)], [(2.0, 200.0)]], ["scatter between starts is not known"]),
        ([[(1.0, 300.0)], [(2.0, 200.0)] * 2], ["it was started once"]),
        ([[(1.0, 300.0)] * 2, [(2.0, None)] * 2], ["1 of 2 candidates have no joules to compare"]),
        ([[(1.0, 300.0), (1.01, 301.0)], [(1.02, 300.5)] * 2], ["do not differ significantly"]),
    ],
)
def test_sure_is_only_what_is_known(
    space: SearchSpace, starts: list[list[tuple[float, float | None]]], doubts: list[str]
) -> None:
    trials = [Trial(one) for one in space.candidates[: len(starts)]]
    for trial, figures in zip(trials, starts, strict=True):
        trial.starts = [start_of(*one) for one in figures]
    known = record(setup_of(space), trials, 60.0, "budget")
    first, report = known["candidates"][0], text_of(render(known))
    assert first["state"] == "front"
    assert first["sure"] is (not doubts)
    assert len(first["not_sure_because"]) == len(doubts)
    for doubt, reason in zip(doubts, first["not_sure_because"], strict=True):
        assert doubt in reason
        assert f"#1: {reason}" in report or f"#1, #2: {reason}" in report or f"#2, #1: {reason}" in report
    assert (" yes " in report) is (not doubts or "started once" in doubts[-1])


def test_the_end_names_what_failed(space: SearchSpace) -> None:
    trials = [Trial(one) for one in space.candidates[:2]]
    trials[0].starts = [start_of(1.0)] * 2
    trials[1].failure = Failed("out of memory", 3.0)
    known = record(setup_of(space), trials, 60.0, "settled")
    assert known["candidates"][0]["sure"]
    assert "every candidate is measured but 1 failed" in text_of(render(known))
