from collections.abc import Callable
from pathlib import Path

import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.spec import SweepSpec, read_sweep

Make = Callable[[str], SweepSpec]


def _own(spec: SweepSpec, *names: str) -> list[tuple[object, ...]]:
    return [tuple(run.options.get(name) for name in names) for run in expand(spec)]


def test_a_grid_is_every_combination_in_the_order_written(sweep_spec: Make) -> None:
    spec = sweep_spec("""
common: {model_id: tiny/flux, benchmark_iters: 2}
grid:
  ulysses_degree: [1, 2]
  batch_size: [1, 4]
""")
    assert _own(spec, "ulysses_degree", "workload.batch_size") == [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert expand(spec)[3].label == "ulysses_degree=2 batch_size=4"
    assert expand(spec)[3].argv == (
        *("--benchmark_iters", "2", "--ulysses_degree", "2", "workload:text-to-image"),
        *("--workload.model_id", "tiny/flux", "--workload.batch_size", "4"),
        *("--workload.base_dir", "run/sweeps/sweep/results"),
    )


def test_a_condition_leaves_an_option_out_and_equal_runs_are_one(sweep_spec: Make) -> None:
    spec = sweep_spec("""
common: {model_id: tiny/flux}
grid:
  ring_degree: {values: [1, 2], when: ulysses_degree > 1}
  ulysses_degree: [1, 2]
""")
    assert _own(spec, "ulysses_degree", "ring_degree") == [(1, None), (2, 1), (2, 2)]


def test_options_that_go_together_and_a_list_of_grids(sweep_spec: Make) -> None:
    spec = sweep_spec("""
grid:
  - {model_id: [tiny/flux], "height, width": [[64, 64], [64, 128]]}
  - {model_id: [tiny/sd3, tiny/flux], "height, width": [[64, 64]]}
""")
    names = ("workload.model_id", "workload.height", "workload.width")
    assert _own(spec, *names) == [("tiny/flux", 64, 64), ("tiny/flux", 64, 128), ("tiny/sd3", 64, 64)]


def test_the_list_stands_beside_the_grid_and_filters_choose(sweep_spec: Make) -> None:
    spec = sweep_spec("""
common: {model_id: tiny/flux}
grid: {batch_size: [1, 2, 3]}
list: [{batch_size: 9, ulysses_degree: 2}]
filter: [batch_size != 2]
""")
    assert _own(spec, "workload.batch_size", "ulysses_degree") == [(1, None), (3, None), (9, 2)]


def test_repeats_have_folders_of_their_own(sweep_spec: Make) -> None:
    spec = sweep_spec("{common: {model_id: tiny/flux, base_dir: out}, repeats: 2, filter: repeat < 9}")
    assert _own(spec, "workload.base_dir") == [("out/repeat-1",), ("out/repeat-2",)]
    assert len({run.key for run in expand(spec)}) == 2


def test_a_key_does_not_depend_on_the_place(sweep_spec: Make) -> None:
    one = expand(sweep_spec("{common: {model_id: tiny/flux}, grid: {batch_size: [1, 2]}}"))
    other = expand(sweep_spec("{common: {model_id: tiny/flux}, grid: {batch_size: [2]}}"))
    assert one[1].key == other[0].key


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "grid: {ulysses_degree: [1]}",
            "no model is named; put model_id under common, or into the grid or list",
        ),
        ("{common: {model_id: a}, grid: {batch: [1]}}", "there is no option 'batch'"),
        ("{common: {model_id: a}, grid: {batch_size: []}}", "grid batch_size has no values"),
        ("{common: {model_id: a}, grid: {'height, width': [64]}}", "needs a list of 2 values in each place"),
        ("{common: {model_id: a}, repeats: 0}", "repeats 0 must be a whole number of 1 or more"),
        ("{common: {model_id: a}, order: random}", "use one of written, cheapest, costliest"),
        ("{common: {model_id: a}, gird: {}}", "has no key 'gird'; use some of folder, common"),
        ("{common: {model_id: a}, slurm: {gpu: 1}}", "slurm has no key 'gpu'"),
        ("{common: [1]}", "common must map options to values"),
        ("repeats: 3", "names no run; give common, grid or list"),
        ("a: [", "is not valid YAML"),
        ("[1]", "must be a mapping"),
    ],
)
def test_says_what_is_wrong(sweep_spec: Make, text: str, line: str) -> None:
    with pytest.raises(UserError) as error:
        expand(sweep_spec(text))
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nothing.yaml: No such file or directory"):
        read_sweep(tmp_path / "nothing.yaml")
