"""Sweeps of a study, one after the other: what they are asked for, and what they have left."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from result_folders import result, save

from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.executors.ledger import Entry
from mlenergy.diffusion.studies import command
from mlenergy.diffusion.studies.content import Report
from mlenergy.diffusion.studies.runner import StudyFolder
from mlenergy.diffusion.studies.study import Study, StudyOptions, Sweep


@option_group("study")
@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Two sweeps, of which the second one depends on the first."""


def sweeps(options):
    grid = {"inference_steps": [1, 2]}
    cells = yield Sweep("first", {"common": {"model_id": "tiny/flux"}, "grid": grid, "repeats": 2})
    done = [cell for cell in cells if cell.set_up is not None]
    if done:
        reference = str(done[0].runs[0].folder)
        yield Sweep("second", {"common": {"model_id": "tiny/flux", "reference": reference}})


EXAMPLE = Study("example", Options, sweeps, lambda options, outcome: Report("Example"), adaptive=True)


@pytest.fixture
def example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return StudyFolder.of(EXAMPLE, Options(), [])


def complete(session, numbers):
    """Leave what runs of a session leave: results, and a ledger that says so."""
    for run in session.runs:
        entry = Entry(run.argv, run.label, processes=1, state="failed", message="it broke")
        if run.number in numbers:
            folder = save(Path(str(run.options["workload.base_dir"])) / f"{session.spec.name}-{run.number}",
                          result([1.0 + run.repeat], batch_size=1))  # fmt: skip
            entry = replace(entry, state="complete", message=None, folder=str(folder))
        session.ledger.entries[run.key] = entry
    session.ledger.save()
    return 0


def test_later_sweeps_get_the_results_of_earlier_ones(example):
    asked = []

    def act(session):
        asked.append((session.spec.name, [dict(run.options) for run in session.runs]))
        return complete(session, {1, 2, 3} if len(asked) == 1 else {1})

    outcome, codes = example.walk(act)
    assert [name for name, _ in asked] == ["example-first", "example-second"] and codes == [0, 0]
    first = asked[0][1][0]
    assert first["workload.dataset"] == "bundled"
    assert first["workload.base_dir"] == "run/studies/example/results/repeat-1"
    assert asked[1][1][0]["reference"] == "run/studies/example/results/repeat-1/example-first-1"
    one, two = outcome.cells("first")
    assert one.set_up is not None and len(one.set_up.starts) == 2
    assert one.set_up.seconds.mean == pytest.approx(2.5)  # 2.0 and 3.0
    assert len(two.runs) == 2 and two.set_up is not None and len(two.set_up.starts) == 1
    assert [run.gap for run in two.runs] == [None, "it broke"]
    assert outcome.cell("first", inference_steps=2) is two
    assert outcome.cell("first", inference_steps=3) is None


def test_after_a_signal_the_other_sweeps_are_only_read(example):
    asked = []

    def act(session):
        asked.append(session.spec.name)
        complete(session, {1})
        return 130

    outcome, codes = example.walk(act)
    assert asked == ["example-first"] and codes == [130]
    [later] = outcome.cells("second")
    assert later.gap == "not run yet" and later.is_open


def test_a_moved_study_finds_its_results_and_its_later_sweeps(example, tmp_path):
    example.walk(lambda session: complete(session, {1, 2, 3, 4}))
    (tmp_path / "run" / "studies" / "example").rename(tmp_path / "elsewhere")
    moved = replace(example, place=tmp_path / "elsewhere")
    outcome, _ = moved.walk(None)
    assert all(run.record is not None for run in outcome.runs) and len(outcome.runs) == 5
    assert str(outcome.cells("second")[0].runs[0].folder).startswith(str(tmp_path / "elsewhere"))


def test_a_failure_that_is_a_result_is_not_run_again(example):
    study = replace(EXAMPLE, is_expected=lambda run: run.gap == "it broke")
    folder = replace(example, study=study)
    folder.walk(lambda session: complete(session, {1, 3}))
    left = []
    folder.walk(lambda session: left.append([run.number for run in session.runs]) or 0)
    assert left[0] == [1, 3]
    again = replace(folder, options=replace(folder.options, resume=False))
    left.clear()
    again.walk(lambda session: left.append([run.number for run in session.runs]) or 0)
    assert left[0] == [1, 2, 3, 4]


def test_results_of_a_cluster_are_found_by_their_command_line(example):
    # There the node's GPU names the folder, which the ledger never learns.
    def submitted(session):
        for run in session.runs:
            entry = Entry(run.argv, run.label, processes=1, state="complete", slurm_task=f"1_{run.number}")
            session.ledger.entries[run.key] = entry
            if run.number < 3:
                content = result([float(run.number)], batch_size=1)
                content["environment"] = {
                    **content["environment"],
                    "command_line": ["benchmark.py", *run.argv],
                }
                save(Path(str(run.options["workload.base_dir"])) / f"on-h200-{run.number}", content)
        session.ledger.save()
        return 0

    outcome, _ = example.walk(submitted)
    one, two = outcome.cells("first")
    assert one.set_up is not None and one.set_up.seconds.mean == pytest.approx(1.5)
    assert two.set_up is None and two.gap == "complete by its exit code, but its results are not here"


def test_options_of_set_and_weights_reach_every_run(example):
    options = replace(example.options, set=("device=cpu", "benchmark_iters=7"), weights="random")
    folder = replace(example, options=options)
    asked = []
    folder.walk(lambda session: asked.extend(session.runs) or 0)
    assert asked and all(
        (run.options["device"], run.options["benchmark_iters"], run.options["workload.weights"])
        == ("cpu", 7, "random")
        for run in asked
    )


def test_slurm_settings_come_from_their_file(example, tmp_path):
    (tmp_path / "slurm.yaml").write_text("processes_per_node: 4\noptions: {partition: gpu}\n")
    options = replace(example.options, slurm=tmp_path / "slurm.yaml", retries=3)
    seen = []
    replace(example, options=options).walk(lambda session: seen.append(session.spec) or 0)
    assert seen[0].slurm.processes_per_node == 4 and seen[0].slurm.options == {"partition": "gpu"}
    assert seen[0].retries == 3


def test_the_command_ends_with_1_where_a_run_failed_and_writes_the_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(command.STUDIES, "example", EXAMPLE)
    monkeypatch.setattr(command.Session, "run_here", lambda session, *_: complete(session, {1, 2, 3}))
    assert command.main(["run", "example"]) == 1
    assert "it broke" in capsys.readouterr().out
    told = json.loads(Path("run/studies/example/report.json").read_text())
    assert [row["reason"] for row in told["tables"]["gaps"]["rows"]] == ["it broke"]


def test_work_after_the_runs_is_done_before_the_report_but_not_after_a_signal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = []
    study = replace(EXAMPLE, after=lambda options, outcome: done.append(len(outcome.runs)))
    monkeypatch.setitem(command.STUDIES, "example", study)
    codes = iter([130, 0, 0])

    def run_here(session, *_):
        complete(session, {1, 2, 3, 4})
        return next(codes)

    monkeypatch.setattr(command.Session, "run_here", run_here)
    assert command.main(["run", "example"]) == 130 and done == []
    assert command.main(["run", "example"]) == 0 and done == [5]
