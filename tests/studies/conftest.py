"""Cells and outcomes of a study, made of results with known figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from result_folders import result, save

from mlenergy.diffusion.results.read import load_result
from mlenergy.diffusion.studies.outcome import Cell, Outcome, StudyRun
from mlenergy.diffusion.sweep.options import full_name

MakeCell = Callable[..., Cell]


@pytest.fixture
def make_cell(tmp_path: Path) -> MakeCell:
    """A cell with these options, whose repeats have these results; texts are the reasons of failed runs."""
    count = 0

    def make(*repeats: dict[str, Any] | str, sweep: str = "sweep", **options: Any) -> Cell:
        nonlocal count
        named = {full_name(name): value for name, value in options.items()}
        runs = []
        for number, one in enumerate(repeats, 1):
            count += 1
            folder = tmp_path / f"run-{count}"
            if isinstance(one, str):
                folder.mkdir()
                runs.append(StudyRun(count, "set-up", named, number, "failed", None, one, folder))
                continue
            save(folder, one)
            record = load_result(folder / "results.json").record
            assert record.state == "complete", record.reason
            runs.append(StudyRun(count, "set-up", named, number, "complete", record, None, folder))
        return Cell(sweep, f"cell {count}", named, tuple(runs))

    return make


@pytest.fixture
def make_outcome(tmp_path: Path) -> Callable[..., Outcome]:
    """An outcome of cells, by their sweeps."""

    def make(*cells: Cell) -> Outcome:
        outcome = Outcome(tmp_path)
        for cell in cells:
            outcome.by_sweep.setdefault(cell.sweep, []).append(cell)
        return outcome

    return make


def gpu_result(seconds_of_an_image: float, **changes: Any) -> dict[str, Any]:
    """A result on GPUs, of two windows of four images that take alike."""
    windows = [4 * seconds_of_an_image] * 2
    return result(windows, **{"joules": [1000 * one for one in windows], **changes})
