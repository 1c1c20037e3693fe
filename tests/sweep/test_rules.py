"""Conditions and expansion, for any sweep: against Python's own arithmetic, and by counting."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.slurm import SlurmSettings
from mlenergy.diffusion.sweep.conditions import Condition
from mlenergy.diffusion.sweep.expand import Run, expand
from mlenergy.diffusion.sweep.spec import Axis, SweepSpec

# Option names as a condition writes them, and their full names.
NAMES = {
    "batch_size": "workload.batch_size",
    "workload.seed": "workload.seed",
    "ulysses_degree": "ulysses_degree",
    "processes": "processes",
}
NUMBER = st.integers(0, 5)
SIGNS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


def joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(parts, st.sampled_from(["and", "or"]), parts)
    return two.map(lambda one: f"({' '.join(one)})") | parts.map(lambda one: f"not {one}")


SUMS = st.recursive(
    st.sampled_from([*NAMES]) | NUMBER.map(str),
    lambda parts: st.tuples(parts, st.sampled_from(["+", "-", "*", "//", "%"]), parts).map(
        lambda one: f"({' '.join(one)})"
    ),
    max_leaves=4,
)
COMPARISONS = st.tuples(SUMS, SIGNS, SUMS).map(" ".join) | st.tuples(
    SUMS, st.sampled_from(["in", "not in"]), st.lists(NUMBER, max_size=3).map(str)
).map(" ".join)
CONDITIONS = st.recursive(COMPARISONS.map(lambda one: f"({one})"), joined, max_leaves=4)
ANYTHING = (
    st.none()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.booleans()
    | st.lists(st.integers(), max_size=2)
)


@given(text=CONDITIONS, numbers=st.tuples(*[NUMBER] * len(NAMES)))
def test_a_condition_of_numbers_means_what_it_means_in_python(text: str, numbers: tuple[int, ...]) -> None:
    values = dict(zip(NAMES.values(), numbers, strict=True))
    python = text.replace("workload.seed", "seed")
    names = {name.rpartition(".")[2]: values[full] for name, full in NAMES.items()}
    try:
        expected = bool(eval(python, {"__builtins__": {}}, names))
    except ZeroDivisionError:
        Condition.parse(text).holds(values)  # null, which compares like any null
        return
    assert Condition.parse(text).holds(values) is expected


@given(text=CONDITIONS, values=st.tuples(*[ANYTHING] * len(NAMES)))
def test_a_condition_holds_or_not_whatever_the_values_are(text: str, values: tuple[Any, ...]) -> None:
    of_name = dict(zip(NAMES.values(), values, strict=True))
    assert Condition.parse(text).holds(of_name) in (True, False)
    assert Condition.parse(text).holds({}) in (True, False)


@given(text=st.text(max_size=40) | st.text("()[]{}.,'\"=<>!+-*%/ \n0159abx", max_size=30))
def test_any_text_is_a_condition_or_a_mistake_in_one_line(text: str) -> None:
    try:
        condition = Condition.parse(text)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert condition.holds({}) in (True, False)


VALUES = st.lists(st.integers(1, 6), min_size=1, max_size=3)
AXES = ("workload.batch_size", "workload.seed", "benchmark_iters", "warmup_iters")


@st.composite
def specs(draw: st.DrawFn) -> SweepSpec:
    grids = []
    for _ in range(draw(st.integers(0, 2))):
        names = draw(st.lists(st.sampled_from(AXES), unique=True, min_size=1))
        grids.append(tuple(Axis((name,), tuple((one,) for one in draw(VALUES))) for name in names))
    explicit = draw(st.lists(st.dictionaries(st.sampled_from(AXES), st.integers(1, 6)), max_size=2))
    common = {"workload.model_id": "tiny/flux"} | draw(
        st.dictionaries(st.sampled_from(AXES), st.integers(7, 9), max_size=2)
    )
    return SweepSpec(
        name="sweep",
        folder=Path("sweep"),
        common=common,
        grids=tuple(grids),
        explicit=tuple(explicit),
        filters=(),
        repeats=draw(st.integers(1, 3)),
        retries=0,
        order="written",
        slurm=SlurmSettings(),
    )


def settings_of(run: Run) -> tuple[Any, ...]:
    return (*(run.options.get(name) for name in AXES), run.repeat)


@given(spec=specs())
def test_runs_are_every_combination_once_in_the_order_written(spec: SweepSpec) -> None:
    wanted: list[dict[str, Any]] = []
    for grid in spec.grids:
        rows_of_grid = itertools.product(*(axis.values for axis in grid))
        wanted += [{a.names[0]: one for a, (one,) in zip(grid, row, strict=True)} for row in rows_of_grid]
    wanted += [dict(one) for one in spec.explicit]
    wanted = wanted or [{}]
    rows = [tuple({**spec.common, **own}.get(name) for name in AXES) for own in wanted]
    repeats = range(1, spec.repeats + 1)
    runs = expand(spec)
    assert [settings_of(run) for run in runs] == [
        (*row, repeat) for row in dict.fromkeys(rows) for repeat in repeats
    ]
    assert [run.number for run in runs] == list(range(1, len(runs) + 1))
    assert len({run.key for run in runs}) == len(runs), "a run's key in the ledger is its own"
    folders = {run.options["workload.base_dir"] for run in runs}
    assert len(folders) == spec.repeats, "repeats of a set-up never share a folder"


@given(spec=specs(), limit=st.integers(0, 7))
def test_a_filter_leaves_exactly_the_runs_for_which_it_holds(spec: SweepSpec, limit: int) -> None:
    filtered = replace(spec, filters=(Condition.parse(f"seed <= {limit} and repeat != 2"),))
    expected = [
        settings_of(run)
        for run in expand(spec)
        if (seed := run.options.get("workload.seed")) is not None and seed <= limit and run.repeat != 2
    ]
    assert [settings_of(run) for run in expand(filtered)] == expected
