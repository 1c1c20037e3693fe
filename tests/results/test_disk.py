"""Real runs on a disk that fills up, turns read-only or goes away: one line, and no earlier result lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete
from mlenergy.diffusion.supervision.terminal import redirect_output

pytestmark = pytest.mark.full

WORKER = Path(__file__).parents[1] / "support" / "disk_worker.py"


def why_not(folder):
    """Why a file system cannot be mounted here, or None where it can."""
    if os.geteuid() != 0:
        return "mounting a small file system needs root"
    missing = [tool for tool in ("unshare", "mount") if shutil.which(tool) is None]
    if missing:
        return f"mounting a small file system needs {', '.join(missing)} (packages util-linux and mount)"
    trial = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    done = subprocess.run(trial, capture_output=True, text=True, check=False)
    return f"no mounts here: {done.stderr.strip()}" if done.returncode else None


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What each run said, and the folder with copies of what each left."""
    kept = tmp_path_factory.mktemp("disk")
    base = kept / "base"
    base.mkdir()
    reason = why_not(base)
    if reason:
        pytest.skip(reason)
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, str(WORKER), str(base)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr
    assert list(base.iterdir()) == []  # all of it was in the file system that was unmounted
    outcomes = json.loads((kept / "outcomes.json").read_text())
    assert outcomes["whole"]["code"] == 0, outcomes["whole"]["err"]
    return outcomes, kept


def the_line(run):
    """The one line of a run that failed by a user's mistake."""
    assert run["code"] == 2, run
    assert "Traceback" not in run["out"] + run["err"]
    (line,) = [line for line in run["err"].splitlines() if line.startswith("mlenergy: error:")]
    return line


def result_files(folder):
    """Content of every file that belongs to the result."""
    names = ["results.json", "requests.json", *(f"image_outputs/{p.name}" for p in images(folder))]
    return {name: (folder / name).read_bytes() for name in names}


def images(folder):
    return sorted((folder / "image_outputs").iterdir())


def assert_earlier_result(kept, name):
    """The copy holds the first run's result, whole, and no half of another."""
    assert is_complete(RunPaths(kept / name, ""))
    assert result_files(kept / name) == result_files(kept / "whole")
    assert len(images(kept / name)) == 4
    assert not (kept / name / ".new").exists()


def test_a_disk_that_fills_up_costs_the_new_result_only(runs):
    outcomes, kept = runs
    line = the_line(outcomes["full"])
    assert f"cannot write {kept}/base/" in line
    assert ".png: No space left on device; free space, or choose another --workload.base_dir" in line
    assert "images/s" in outcomes["full"]["out"], "the numbers are printed before the files that may fail"
    assert_earlier_result(kept, "full")
    numbers = json.loads((kept / "full" / "results_interrupted.json").read_text())
    assert numbers["completed"] == 4 and len(numbers["iterations"]) == 4
    status = json.loads((kept / "full" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "No space left on device" in status["message"]


def test_a_disk_that_turns_read_only_costs_the_new_result_only(runs):
    outcomes, kept = runs
    line = the_line(outcomes["lost"])
    assert "/.new: Read-only file system; choose a --workload.base_dir that you can write to" in line
    assert "images/s" in outcomes["lost"]["out"], "the numbers are printed before the files that may fail"
    assert_earlier_result(kept, "lost")


def test_a_folder_that_no_longer_exists_is_not_made_anew(runs):
    outcomes, kept = runs
    line = the_line(outcomes["moved"])
    assert "no longer exists (it was removed, moved or unmounted during the run)" in line
    assert "--workload.base_dir, then run again" in line
    assert not (kept / "moved" / "results.json").exists()
    assert not outcomes["moved"]["made_anew"]


def test_a_log_that_cannot_be_made_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*gone/log.txt: No such file"):
        redirect_output(tmp_path / "gone" / "log.txt", debug=False).__enter__()
