"""A file is whole or not there: the order of what is done to it, and numbers that JSON has no word for."""

from __future__ import annotations

import errno
import json
import math
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results import atomic
from mlenergy.diffusion.results.atomic import cannot_write, write_json, written_aside

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
CONTENT = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def is_finite(value):
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    return all(map(is_finite, value)) if isinstance(value, (list, tuple)) else True


def as_lists(value):
    if isinstance(value, dict):
        return {key: as_lists(one) for key, one in value.items()}
    return [as_lists(one) for one in value] if isinstance(value, (list, tuple)) else value


@given(CONTENT)
@settings(max_examples=15)
def test_what_is_finite_comes_back_and_anything_else_leaves_the_old_file(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any" / "r.json"
    write_json(file, "old")
    if is_finite(content):
        write_json(file, content)
        assert json.loads(file.read_text(encoding="ascii")) == as_lists(content)
    else:
        with pytest.raises(ValueError, match=r"^r\.json.* is (nan|inf|-inf); not written$"):
            write_json(file, content)
        assert json.loads(file.read_text()) == "old"
    assert [one.name for one in file.parent.iterdir()] == ["r.json"]


def test_content_is_forced_to_disk_before_the_name_and_the_name_after(tmp_path, monkeypatch):
    """After a power cut at any moment the good name has the old content or the new one."""
    done = []
    replace = Path.replace

    def force(path):
        done.append(("force", path.name, path.read_text() if path.is_file() else None))

    def rename(path, target):
        done.append(("rename", Path(target).name, None))
        return replace(path, target)

    monkeypatch.setattr(atomic, "force_to_disk", force)
    monkeypatch.setattr(Path, "replace", rename)
    write_json(tmp_path / "run" / "r.json", 7)
    (_, aside, text), second, third = done
    assert aside.startswith(".writing-") and text == "7\n"
    assert second == ("rename", "r.json", None) and third == ("force", "run", None)


def test_forcing_is_the_kernels(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink()))
    handles = sum(1 for _ in Path("/proc/self/fd").iterdir())
    write_json(tmp_path / "r.json", 7)
    assert [path.parent for path in synced] == [tmp_path, tmp_path.parent] and synced[1] == tmp_path
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == handles


def test_two_threads_write_beside_each_other(tmp_path):
    first, names = written_aside(tmp_path / "r.json"), []
    names.append(first.__enter__())
    names[0].write_text("first")

    def second():
        with written_aside(tmp_path / "r.json") as aside:
            names.append(aside)
            aside.write_text("second")

    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
    assert (tmp_path / "r.json").read_text() == "second"
    first.__exit__(None, None, None)
    assert (tmp_path / "r.json").read_text() == "first" and len(set(names)) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("x"), OSError(errno.EIO, "broken")])
def test_a_failure_leaves_neither_a_rest_nor_a_change(tmp_path, error):
    (tmp_path / "r.json").write_text("old")
    with (
        pytest.raises(UserError if isinstance(error, OSError) else type(error)),
        written_aside(tmp_path / "r.json") as aside,
    ):
        aside.write_text("half")
        raise error
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("r.json", "old")]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        *((code, "free space, or choose another") for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
        *(
            (code, "choose a --workload.base_dir that you can")
            for code in (errno.EACCES, errno.EROFS, errno.EIO)
        ),
    ],
)
def test_the_advice_fits_the_error(number, advice):
    line = str(cannot_write(Path("/x"), OSError(number, os.strerror(number))))
    assert line.startswith(f"cannot write /x: {os.strerror(number)}; {advice}")
