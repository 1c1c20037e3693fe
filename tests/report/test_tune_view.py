"""The report of a search, as text: figures by a formula, everything else as it really is made."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console, RenderableType
from tune_bench import H200, Bench, choice_of, measured

from mlenergy.diffusion.report.tune_view import render, render_choice
from mlenergy.diffusion.tune.candidates import Choice
from mlenergy.diffusion.tune.intervals import Start
from mlenergy.diffusion.tune.record import Frame, record
from mlenergy.diffusion.tune.schedule import Limits
from mlenergy.diffusion.tune.search import search
from mlenergy.diffusion.tune.state import Tried

LIMITS = Limits(budget_s=170, rounds=3, tolerance=0.001, first_iters=3)
SECONDS = Start(3, 0.5, 0.01)


@pytest.fixture(scope="module")
def choice() -> Choice:
    words = ["--degrees", "ulysses=2", "pipefusion=2", "ulysses=1", "--batch_sizes", "1", "2", "4"]
    return choice_of([*words, "--attention_backends", "cudnn", "--compile", "off", "on", "--approximate"])


def frame_of(choice: Choice) -> Frame:
    model = "black-forest-labs/FLUX.1-dev"
    return Frame(model, "mlenergy tune …", "run/tune/flux", H200, LIMITS, choice)


def text_of(report: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160, highlight=False, markup=False).print(report, crop=False)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def test_a_front_with_everything_around_it(choice: Choice, golden) -> None:  # type: ignore[no-untyped-def]
    truth = {1: (1.0, 300.0), 2: (1.01, 302.0), 4: (2.0, 200.0), 5: (5.0, 900.0), 6: (0.8, 450.0)}
    bench, tried = Bench(truth, scatter=0.004), [Tried(one) for one in choice.candidates]
    ended = search(tried, LIMITS, bench.start, bench.elapsed_s)
    assert ended == "budget"
    warned = next(one for one in tried if one.candidate.number == 6)
    warned.starts[0] = dataclasses.replace(warned.starts[0], warnings=("windows are short",))
    known = record(frame_of(choice), tried, bench.now_s, ended)
    states = {entry["state"] for entry in known["candidates"]}
    assert states == {"front", "undecided", "dominated", "failed", "not measured"}
    golden("tune_front.txt", text_of(render(known)))


def test_without_joules(choice: Choice, golden) -> None:  # type: ignore[no-untyped-def]
    tried = [Tried(one) for one in choice.candidates[:2]]
    for one, seconds in zip(tried, (SECONDS, Start(3, 0.7, 0.01)), strict=True):
        start = measured(seconds, None, 2.0, 12.0, reason="no GPU takes part in this run")
        one.starts = [dataclasses.replace(start, peak_memory_bytes=None, peak_memory_reason="it is a CPU")]
    known = record(frame_of(choice), tried, 24.0, "stopped by SIGTERM; the same command goes on")
    assert known["objectives"] == ["seconds_per_image"]
    assert [entry["joules_per_image"] for entry in known["candidates"]] == [None, None]
    assert [entry["state"] for entry in known["candidates"]] == ["front", "dominated"]
    golden("tune_seconds.txt", text_of(render(known)))


def test_what_has_no_joules_is_not_compared_with_what_has(choice: Choice) -> None:
    tried = [Tried(one) for one in choice.candidates[:2]]
    tried[0].starts = [measured(SECONDS, Start(3, 200.0, 1.0), 2.0, 12.0)]
    tried[1].starts = [measured(Start(3, 0.1, 0.01), None, 2.0, 12.0, reason="a GPU was lost")]
    known = record(frame_of(choice), tried, 24.0, "settled")
    assert [entry["state"] for entry in known["candidates"]] == ["front", "not comparable"]
    assert "a GPU was lost" in text_of(render(known))


def test_many_that_are_alike_are_counted(choice: Choice) -> None:
    tried = [Tried(one) for one in choice.candidates[:5]]
    for one in tried:
        one.starts = [measured(SECONDS, Start(3, 200.0, 1.0), 2.0, 12.0)]
    report = text_of(render(record(frame_of(choice), tried, 60.0, "rounds")))
    assert report.count("not from 4 others") == 5


def test_a_candidate_that_scatters_more_than_the_rest_is_named(choice: Choice) -> None:
    tried = [Tried(one) for one in choice.candidates[:5]]
    for one in tried:
        again = Start(6, 2.5 if one is tried[2] else 0.501 + 0.001 * one.candidate.number, 0.01)
        one.starts = [measured(start, Start(3, 200.0, 1.0), 2.0, 12.0) for start in (SECONDS, again)]
    report = text_of(render(record(frame_of(choice), tried, 60.0, "rounds")))
    assert "over all candidates but #3, which scatter more)" in report


def test_a_dry_run(choice: Choice, golden) -> None:  # type: ignore[no-untyped-def]
    known = record(frame_of(choice), [Tried(one) for one in choice.candidates], 0.0, "dry run")
    golden("tune_dry_run.txt", text_of(render_choice(known)))
