"""One writer a folder, across processes; what a dead one left is no obstacle."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results import lock
from mlenergy.diffusion.results.lock import check_held, result_lock

HOLD = """
import pathlib, sys
from mlenergy.diffusion.results.lock import result_lock
from mlenergy.diffusion.errors import UserError
try:
    with result_lock(pathlib.Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
except UserError as error:
    print(error, flush=True)
"""


@contextlib.contextmanager
def holder(lock_file, code=HOLD):
    """Another process that holds the lock until it is asked to stop."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(lock_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_in_one_line_that_names_the_first(tmp_path):
    lock_file = tmp_path / "run" / ".lock"
    with holder(lock_file) as (first, said):
        assert said == "held"
        with pytest.raises(UserError) as caught, result_lock(lock_file):
            pass
        line = f"{lock_file.parent} is being written by process {first.pid} on {socket.gethostname()}"
        assert str(caught.value) == f"{line}; wait for it, or choose another --workload.base_dir"
        with holder(lock_file) as (_, refused):
            assert refused.startswith(line), "a process that was refused takes no lock away"
        first.communicate("\n")
    assert not lock_file.exists()
    with result_lock(lock_file):
        assert signature(lock_file) == {"pid": os.getpid(), "host": socket.gethostname()}
        with holder(lock_file) as (_, refused):
            assert f"process {os.getpid()}" in refused
    assert not lock_file.exists()


def test_a_killed_process_leaves_a_file_that_is_taken_over(tmp_path):
    lock_file = tmp_path / ".lock"
    with holder(lock_file) as (first, _):
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert json.loads(lock_file.read_text())["pid"] == first.pid
    with result_lock(lock_file):
        assert signature(lock_file)["pid"] == os.getpid()


def test_one_process_does_not_take_its_own_lock_twice(tmp_path):
    lock_file = tmp_path / ".lock"
    with result_lock(lock_file):
        with pytest.raises(UserError, match="is being written by process"), result_lock(lock_file):
            pass
        with holder(lock_file) as (_, refused):
            assert "is being written" in refused, "the refusal did not drop the lock"


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(RuntimeError), result_lock(tmp_path / ".lock"):
        raise RuntimeError
    with result_lock(tmp_path / ".lock"):
        pass


def test_a_child_that_outlives_a_killed_run_does_not_keep_its_lock(tmp_path):
    lock_file = tmp_path / ".lock"
    fork = "import os; child = os.fork() or sys.stdin.readline(); print(child"
    forking = HOLD.replace('print("held"', fork)
    with holder(lock_file, forking) as (first, child):
        first.send_signal(signal.SIGKILL)
        first.wait()
        os.kill(int(child), 0)
        assert lock_file.exists(), "it was left behind, not released"
        with holder(lock_file) as (_, said):
            assert said == "held"
        os.kill(int(child), signal.SIGKILL)


def signature(lock_file):
    """Read by another process: a process that closes a file drops its own record locks on it."""
    return json.loads(subprocess.run(["cat", lock_file], capture_output=True, check=True).stdout)


@contextlib.contextmanager
def ordinary_user():
    """Root may write anywhere, so a test of permissions gives that up for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_base_dir_is_one_clear_line():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        with ordinary_user(), pytest.raises(UserError) as caught, result_lock(Path(folder, "run", ".lock")):
            pass
        Path(folder).chmod(0o755)
    line = f"cannot write {folder}/run: Permission denied; choose a --workload.base_dir that you can write to"
    assert str(caught.value) == line


def test_a_base_dir_below_a_file_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="Not a directory; choose"),
        result_lock(tmp_path / "file" / "run" / ".lock"),
    ):
        pass


@pytest.mark.parametrize("again", [False, True])
def test_a_file_that_is_removed_between_open_and_lock_is_no_lock(tmp_path, monkeypatch, again):
    """Its last holder removes it as it ends; a third run may hold the new file of that name."""
    lock_file, own, opened = tmp_path / ".lock", lock._lock, []

    def removed_before(file, handle, option):
        opened.append(handle)
        if len(opened) == 1:
            file.unlink()
            if again:
                file.write_text("another run's")
        own(file, handle, option)

    monkeypatch.setattr(lock, "_lock", removed_before)
    with result_lock(lock_file):
        assert len(opened) == 2, "the lock on a file without a name is worth nothing"
        assert os.path.samestat(lock_file.stat(), os.fstat(opened[1]))
        check_held(lock_file)
        with holder(lock_file) as (_, refused):
            assert "is being written" in refused


def test_the_file_is_removed_while_it_is_still_locked(tmp_path, monkeypatch):
    order, unlink, close = [], Path.unlink, os.close
    monkeypatch.setattr(Path, "unlink", lambda path: (order.append("unlink"), unlink(path))[1])
    with result_lock(tmp_path / ".lock"):
        handle = lock._held_here[str(tmp_path / ".lock")]

        def note(closed):
            order.extend(["close"] * (closed == handle))
            close(closed)

        monkeypatch.setattr(os, "close", note)
    assert order == ["unlink", "close"]


@pytest.mark.parametrize("how", ["removed", "replaced", "never locked"])
def test_a_folder_that_is_no_longer_the_locked_one_is_told(tmp_path, how):
    lock_file = tmp_path / "run" / ".lock"
    with contextlib.ExitStack() as stack:
        if how != "never locked":
            stack.enter_context(result_lock(lock_file))
            check_held(lock_file)
            lock_file.parent.rename(tmp_path / "moved")
        if how != "removed":
            lock_file.parent.mkdir()
            lock_file.write_text("")
        with pytest.raises(UserError, match="no longer exists"):
            check_held(lock_file)
