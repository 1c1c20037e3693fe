"""Runs that overlap on a GPU know of each other; those that do not, do not."""

import os
import signal
import subprocess
import sys

import pytest

from mlenergy.diffusion.environment.gpu_users import RUNTIME_DIR, gpu_users

GPU, OTHER = "GPU-aaaa", "GPU-bbbb"
USER = "import sys, time\nfrom mlenergy.diffusion.environment.gpu_users import gpu_users\n"
USER += "with gpu_users([sys.argv[1]], 'a killed run'):\n    print('there', flush=True)\n    time.sleep(60)\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(RUNTIME_DIR, str(tmp_path / "users"))
    return tmp_path / "users"


def test_overlapping_runs_learn_of_each_other_whichever_ends_first(folder):
    with gpu_users([GPU, OTHER], "long") as long:
        assert long.others() == []
        with gpu_users([GPU], "short") as short:
            (line,) = short.others()
            assert f"(process {os.getpid()} on " in line and f": long) used {GPU} at the same time" in line
        with gpu_users([OTHER], "later") as later:
            assert len(later.others()) == 1
        lines = long.others()
        assert [("short" in line, "later" in line) for line in lines] == [(True, False), (False, True)]
        assert long.others() == lines
    assert list(folder.rglob("*.*")) == []


def test_runs_one_after_the_other_or_on_other_gpus_do_not_overlap():
    with gpu_users([GPU], "first"), gpu_users([OTHER], "beside") as beside:
        assert beside.others() == []
    with gpu_users([GPU], "second") as second:
        assert second.others() == []


def test_a_killed_run_counts_as_long_as_it_lived(folder):
    process = subprocess.Popen([sys.executable, "-c", USER, GPU], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    with gpu_users([GPU], "beside it") as users:
        assert f"process {process.pid} " in users.others()[0] and "a killed run" in users.others()[0]
        process.send_signal(signal.SIGKILL)
        process.wait()
    with gpu_users([GPU], "after it") as users:
        assert users.others() == []
    process.stdout.close()
    assert list(folder.rglob("*.*")) == []


def test_a_folder_that_cannot_be_written_costs_nothing(folder):
    folder.write_text("a file")
    with gpu_users([GPU], "run") as users:
        assert users.others() == []


def test_words_of_others_are_not_trusted(folder):
    with gpu_users([GPU], "run") as users:
        (own,) = folder.rglob("*.run")
        with own.open("a") as file:
            file.write("not JSON\n")
        assert users.others() == [f"another run used {GPU} at the same time"]
