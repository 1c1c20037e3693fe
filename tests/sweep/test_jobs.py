from collections.abc import Callable
from pathlib import Path

import pytest

from mlenergy.diffusion.executors.ledger import Entry, Ledger, State
from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.spec import SweepSpec
from mlenergy.diffusion.sweep.todo import hold_back, plan_runs

Make = Callable[[str], SweepSpec]

GRID = """
common: {model_id: black-forest-labs/FLUX.1-dev, device: cpu}
grid: {ulysses_degree: [1, 2, 5], batch_size: [4, 1]}
"""


def test_what_cannot_work_is_pruned_with_the_plans_reason(sweep_spec: Make) -> None:
    spec = sweep_spec(GRID)
    todo = plan_runs(spec, expand(spec), "here")
    jobs, pruned = todo.jobs, todo.pruned
    assert [(job.number, job.processes) for job in jobs] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert [one.number for one in pruned] == [5, 6]
    assert "--ulysses_degree 5 does not divide the 24 attention heads" in pruned[0].reason
    assert len({job.folder for job in jobs}) == 4


def test_filters_may_ask_for_processes(sweep_spec: Make) -> None:
    spec = sweep_spec(GRID + "filter: [processes > 1, batch_size == 1]")
    jobs = plan_runs(spec, expand(spec), "here").jobs
    assert [job.number for job in jobs] == [2]


def test_order_by_cost(sweep_spec: Make) -> None:
    numbers = {}
    for order in ("cheapest", "costliest"):
        spec = sweep_spec(f"{GRID}order: {order}")
        runs = {run.number: run for run in expand(spec)}
        jobs = plan_runs(spec, list(runs.values()), "here").jobs
        numbers[order] = [runs[job.number].options["workload.batch_size"] for job in jobs]
        costs = [job.cost for job in jobs]
        assert costs == sorted(costs, reverse=order == "costliest")
    assert numbers["cheapest"][:2] == [1, 1]
    assert numbers["costliest"][0] == 4


def test_a_cluster_is_planned_for_from_a_machine_without_gpus(sweep_spec: Make) -> None:
    spec = sweep_spec("{common: {model_id: black-forest-labs/FLUX.1-dev, device: cuda, ulysses_degree: 8}}")
    todo = plan_runs(spec, expand(spec), "cluster")
    assert not todo.pruned
    assert [(job.device, job.processes, job.folder) for job in todo.jobs] == [("cuda", 8, None)]


@pytest.mark.parametrize(
    ("state", "attempts", "is_held"),
    [
        ("failed", 1, False),  # the first attempt is no retry
        ("failed", 2, False),
        ("failed", 3, True),
        ("interrupted", 3, True),
        ("planned", 9, False),  # it was never left without a result
    ],
)
def test_a_run_is_tried_again_as_often_as_asked(
    sweep_spec: Make, tmp_path: Path, state: State, attempts: int, is_held: bool
) -> None:
    spec = sweep_spec(GRID)
    todo = plan_runs(spec, expand(spec), "here")
    first = todo.jobs[0]
    earlier = {first.key: Entry(argv=first.argv, label=first.label, state=state, attempts=attempts)}
    ledger = Ledger.load(tmp_path / "state.json")
    left, held = hold_back(todo, ledger, earlier, retries=2)
    assert held == ([first] if is_held else [])
    assert [job.number for job in left.jobs] == ([2, 3, 4] if is_held else [1, 2, 3, 4])
