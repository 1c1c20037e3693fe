"""Sources of a run's options in a sweep: common options, conditions, repeats, labels."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.spec import SweepSpec

Make = Callable[[str], SweepSpec]


def _of(spec: SweepSpec, *names: str) -> list[tuple[object, ...]]:
    return [tuple(run.options.get(name) for name in names) for run in expand(spec)]


@pytest.mark.parametrize(("common", "expected"), [(1, [(None,)]), (2, [(1,), (4,)])])
def test_a_condition_may_be_about_a_common_option(
    sweep_spec: Make, common: int, expected: list[object]
) -> None:
    spec = sweep_spec(f"""
common: {{model_id: tiny/flux, ulysses_degree: {common}}}
grid:
  batch_size: {{values: [1, 4], when: ulysses_degree > 1}}
""")
    assert _of(spec, "workload.batch_size") == expected


def test_a_runs_own_option_wins_over_the_common_one_for_conditions_too(sweep_spec: Make) -> None:
    spec = sweep_spec("""
common: {model_id: tiny/flux, ulysses_degree: 2, seed: 1}
grid:
  batch_size: {values: [4], when: ulysses_degree > 1}
  ulysses_degree: [1, 4]
  seed: [7]
""")
    assert _of(spec, "ulysses_degree", "workload.batch_size", "workload.seed") == [(1, None, 7), (4, 4, 7)]


def test_repeats_are_as_many_as_asked_each_in_a_folder_of_its_own(sweep_spec: Make) -> None:
    spec = sweep_spec("""
repeats: 3
common: {model_id: tiny/flux}
grid: {batch_size: [1, 2]}
""")
    runs = expand(spec)
    assert [run.number for run in runs] == [1, 2, 3, 4, 5, 6]
    assert [run.repeat for run in runs] == [1, 2, 3] * 2
    assert len({run.key for run in runs}) == 6
    folders = [str(run.options["workload.base_dir"]) for run in runs]
    assert [folder[-8:] for folder in folders] == ["repeat-1", "repeat-2", "repeat-3"] * 2
    assert [run.label for run in runs[:2]] == ["batch_size=1 repeat=1", "batch_size=1 repeat=2"]


def test_labels_name_what_differs_and_nothing_else(sweep_spec: Make) -> None:
    spec = sweep_spec("""
common: {model_id: tiny/flux, seed: 5}
grid: {batch_size: [1, 2], benchmark_iters: [3]}
""")
    assert [run.label for run in expand(spec)] == ["batch_size=1", "batch_size=2"]
    alone = sweep_spec("common: {model_id: tiny/flux}\n")
    assert [run.label for run in expand(alone)] == ["tiny/flux"]


def test_every_filter_has_to_hold(sweep_spec: Make) -> None:
    spec = sweep_spec("""
repeats: 2
common: {model_id: tiny/flux}
grid: {batch_size: [1, 2, 4], seed: [1, 2]}
filter: [batch_size > 1, seed == 2, repeat == 1 or batch_size == 4]
""")
    found = [
        (run.options["workload.batch_size"], run.options["workload.seed"], run.repeat) for run in expand(spec)
    ]
    assert found == [(2, 2, 1), (4, 2, 1), (4, 2, 2)]
