"""Going on with a sweep through Slurm: what failed or was interrupted, so often as retries allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlenergy.diffusion.executors.ledger import Entry, Ledger
from mlenergy.diffusion.sweep.command import main
from mlenergy.diffusion.sweep.expand import expand
from mlenergy.diffusion.sweep.spec import read_sweep
from mlenergy.diffusion.version import __version__

SWEEP = """
folder: sweep
common: {model_id: black-forest-labs/FLUX.1-dev, dataset: bundled}
grid: {seed: [1, 2, 3, 4, 5, 6]}
retries: 1
slurm: {processes_per_node: 8}
"""
ENDED = [
    Entry((), "", state="complete", attempts=1, slurm_task="7_1"),
    Entry((), "", state="failed", attempts=1, message="a node failed"),
    Entry((), "", state="failed", attempts=2, message="a node failed"),
    Entry((), "", state="interrupted", attempts=1, message="the time limit"),
    Entry((), "", state="interrupted", attempts=2, message="the time limit"),
]


@pytest.mark.parametrize(("words", "name"), [([], "resubmit"), (["--retries", "2"], "resubmit-retries-2")])
def test_what_would_be_submitted_again(
    sweep_file: Callable[[str], Path],
    golden: Callable[[str, str], None],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    name: str,
) -> None:
    file = sweep_file(SWEEP)
    runs = expand(read_sweep(file))
    ledger = Ledger(Path("sweep/state.json"))
    for run, entry in zip(runs, ENDED, strict=False):
        planned_on = f"cluster, {__version__}"
        ledger.entries[run.key] = replace(entry, argv=run.argv, label=run.label, planned_on=planned_on)
    ledger.save()
    before = ledger.file.read_text()
    assert main([str(file), "--executor", "slurm", "--print", *words]) == 0
    golden(f"{name}.txt", capsys.readouterr().out.replace(str(file.parent), "/home/me"))
    assert ledger.file.read_text() == before
