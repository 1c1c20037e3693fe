"""A new result takes an earlier one's place whole, whatever happens in between."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from result_samples import ENVIRONMENT, cpu_measurement, cpu_plan, prompt_set

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.build import RunRecord, build_result
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete
from mlenergy.diffusion.results.save import save_requests, save_result
from mlenergy.diffusion.results.swap import recover_interrupted_swap, replaced_result

HERE = Path(__file__).parent
SUPPORT = HERE.parent / "support"


@functools.cache
def content():
    """Requests and result of a run, and its images' names."""
    plan = cpu_plan()
    paths, prompts = RunPaths.of(plan), prompt_set(plan)
    names = [paths.relative(paths.image(r.index, r.prompt)) for r in prompts.requests]
    return prompts, build_result(RunRecord(plan, cpu_measurement(), prompts, ENVIRONMENT), names), names


def write_result(paths, mark):
    """A whole result whose every file holds the mark."""
    prompts, result, names = content()
    paths.images.mkdir(parents=True)
    for name in names:
        (paths.folder / name).write_text(mark)
    save_requests(paths, prompts)
    save_result(paths, result | {"date": mark})


def marks(paths):
    """The marks in results.json and the images."""
    images = {file.read_text() for file in paths.images.iterdir()}
    return {json.loads(paths.results.read_text())["date"], *images}


@pytest.fixture
def paths(tmp_path):
    """An earlier result, with what belongs to no result."""
    paths = RunPaths(tmp_path / "earlier", "tiny-flux")
    write_result(paths, "earlier")
    for file in (paths.lock, paths.driver_log, paths.status):
        file.write_text("mine")
    return paths


def test_the_new_result_replaces_all_of_the_earlier_one(paths):
    paths.timeline.write_text("the new one has none")
    paths.interrupted.write_text("earlier")
    (paths.images / "stale.png").write_text("earlier")
    with replaced_result(paths) as new:
        write_result(new, "new")
        assert is_complete(paths)
        assert "new" not in marks(paths)
    assert is_complete(paths)
    assert marks(paths) == {"new"}
    left = ["image_outputs", "requests.json", "results.json"]
    assert sorted(p.name for p in paths.folder.iterdir()) == [".lock", "driver_log.txt", *left, "status.json"]


def test_there_need_not_be_an_earlier_one(tmp_path):
    paths = RunPaths(tmp_path / "result", "tiny-flux")
    with replaced_result(paths) as new:
        write_result(new, "new")
    assert marks(paths) == {"new"}


def test_a_failure_leaves_the_earlier_result_and_nothing_else(paths):
    before = sorted(paths.folder.rglob("*"))
    with pytest.raises(UserError, match="no room"), replaced_result(paths) as new:
        write_result(new, "new")
        raise UserError("no room")
    assert sorted(paths.folder.rglob("*")) == before
    assert marks(paths) == {"earlier"}


def test_a_file_in_the_way_is_one_line_and_both_results_stay_whole(paths):
    complaint = r"is whole in .*\.new, but cannot be moved"
    with pytest.raises(UserError, match=complaint), replaced_result(paths) as new:
        write_result(new, "new")
        in_the_way = new.folder / "leaving" / "image_outputs" / "in the way"
        in_the_way.mkdir(parents=True)
    assert marks(new) == {"new"}
    in_the_way.rmdir()
    recover_interrupted_swap(paths)
    assert marks(paths) == {"new"}


def test_a_result_leaves_first_and_arrives_last(paths, monkeypatch):
    """While its other files move, a reader finds no results.json that speaks of them."""
    moved, rename = [], Path.rename

    def note(path, target):
        if path.exists():
            moved.append((path.name, Path(target).parent.name))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", note)
    with replaced_result(paths) as new:
        write_result(new, "new")
    out = [name for name, folder in moved if folder == "leaving"]
    into = [name for name, folder in moved if folder == paths.folder.name]
    assert (out[0], into[-1]) == ("results.json", "results.json")
    assert len(out) == len(into) == 3


# Swaps in a child that the kernel kills at its Nth rename, for N = 1, 2, … until one gets through.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(os.pathsep)
import test_swap as test
from mlenergy.diffusion.results.swap import replaced_result
from mlenergy.diffusion.results.paths import RunPaths

test.content()  # once, before there are children
folders, number, status = Path(sys.argv[2]), 0, 1
while status:
    number += 1
    folder = folders / f"killed-{number}"
    shutil.copytree(folders / "earlier", folder)
    if not (child := os.fork()):
        renames = []
        def count(event, arguments):
            if event == "os.rename":
                renames.append(arguments)
                if len(renames) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        with replaced_result(RunPaths(folder, "tiny-flux")) as new:
            test.write_result(new, "new")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
print(number)
"""


def test_killed_anywhere_one_whole_result_is_left(tmp_path, paths):
    command = [sys.executable, "-c", KILLED, f"{HERE}{os.pathsep}{SUPPORT}", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = []
    for number in range(1, int(done.stdout) + 1):
        killed = RunPaths(tmp_path / f"killed-{number}", "tiny-flux")
        if is_complete(killed):  # no reader meets a mix
            assert len(marks(killed)) == 1
        recover_interrupted_swap(killed)
        assert is_complete(killed)
        found += marks(killed)
        assert not killed.new.folder.exists()
        assert not list(killed.folder.glob(".writing-*"))
    # Two renames within the new result, seven tried out of the folder, one to end this, seven tried into it.
    assert found == ["earlier"] * 2 + ["new"] * 16
