"""A forked process is what the started one would be; what cannot be forked is started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import fork_server
import forked
import pytest

SAYS = "import os, sys; print(os.getcwd(), os.environ['WORD'], sys.argv[1:], input(), 'torch' in sys.modules)"
PARENT = "import os; print(os.getppid())"


def python(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, *words], capture_output=True, text=True, timeout=120, **options)


def test_words_environment_folder_and_input_arrive(tmp_path: Path) -> None:
    done = python("-c", SAYS, "a", "b c", cwd=tmp_path, env={**os.environ, "WORD": "here"}, input="said\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path} here ['a', 'b c'] said True\n"


@pytest.mark.parametrize(
    ("code", "exit_code", "stderr"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit('a line')", 1, "a line\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
    ],
)
def test_the_end_of_a_process_is_told(code: str, exit_code: int, stderr: str) -> None:
    done = python("-c", code)
    assert done.returncode == exit_code
    assert done.stderr.endswith(stderr)
    with pytest.raises(subprocess.CalledProcessError):
        python("-c", code, check=True)


def test_exit_functions_and_threads_come_first() -> None:
    code = (
        "import atexit, threading, time; atexit.register(print, 'exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()"
    )
    assert python("-c", code).stdout == "thread\nexit\n"


def test_it_can_be_polled_seen_and_killed() -> None:
    process = forked.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert process.poll() is None
    assert "import time; time.sleep(60)" in forked.running()[process.pid]["words"]
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    process.kill()
    assert process.wait(10) == process.poll() == -signal.SIGKILL
    assert process.pid not in forked.running()


def test_what_a_library_reads_as_it_is_imported_needs_a_start() -> None:
    started = python("-c", PARENT, env={**os.environ, "HF_HOME": "/elsewhere"})
    assert int(started.stdout) == os.getpid() != int(python("-c", PARENT).stdout)


def test_the_cache_folder_that_torch_sets_as_it_compiles_changes_nothing(tmp_path: Path) -> None:
    environ = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = python("-c", "import os; print(os.getppid(), os.environ['TORCHINDUCTOR_CACHE_DIR'])", env=environ)
    parent, folder = done.stdout.split()
    assert int(parent) != os.getpid()
    assert folder == str(tmp_path)


def test_variables_that_a_run_in_this_process_has_left_are_forgotten() -> None:
    known = fork_server.early(os.environ)
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # as the program does
    assert int(python("-c", PARENT).stdout) == os.getpid()
    fork_server.forget_others(known)
    assert int(python("-c", PARENT).stdout) != os.getpid()
