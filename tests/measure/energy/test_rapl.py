"""CPU package and DRAM energy through Zeus, on a simulated powercap tree."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path

import pytest

MAX_UJ = 262_143_328_850


class Zone:
    """One RAPL zone whose counter grows with the clock at a known power."""

    def __init__(self, folder: Path, name: str, watts: float, begin_uj: int = 0) -> None:
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{MAX_UJ}\n")
        self.file = folder / "energy_uj"
        self.watts, self.begin_uj, self.begin_s = watts, begin_uj, time.monotonic()
        self.jump_uj = 0
        self.write()

    def write(self) -> None:
        grown = self.begin_uj + (time.monotonic() - self.begin_s) * self.watts * 1e6 + self.jump_uj
        aside = self.file.with_suffix(".new")
        aside.write_text(f"{int(grown) % MAX_UJ}\n")
        aside.replace(self.file)  # a reader never sees half a number


@pytest.fixture
def powercap():
    """A machine of two packages, the first with DRAM; counters move every millisecond."""
    # In memory where there is a place for it: a disk that stalls for a moment would hold the counters.
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="powercap-", dir=memory if memory.is_dir() else None)
    root = Path(folder) / "intel-rapl"
    zones = [
        Zone(root / "intel-rapl:0", "package-0", 80),
        Zone(root / "intel-rapl:0" / "intel-rapl:0:0", "core", 40),
        Zone(root / "intel-rapl:0" / "intel-rapl:0:1", "dram", 20),
        Zone(root / "intel-rapl:1", "package-1", 70),
    ]
    done = threading.Event()

    def keep_moving():
        while not done.wait(0.001):
            for zone in zones:
                zone.write()

    thread = threading.Thread(target=keep_moving)
    thread.start()
    yield root, zones
    done.set()
    thread.join()
    shutil.rmtree(folder)


def test_cpu_and_dram_joules_stand_beside_the_gpus(on_double, powercap):
    root, _ = powercap
    case = {"gpu": None, "seconds": 2.0}
    gpu = {**case, "gpu": "GPU-aaaa0000-0000-0000-0000-000000000000"}
    plain, both = on_double(case, gpu, environ={"RAPL_DOUBLE": str(root)}, power="const:300")
    for measured in (plain, both):
        (iteration,) = measured["iterations"]
        (node,) = iteration["energy"]["nodes"]
        assert node["cpu_package_j"] == pytest.approx(150 * iteration["duration_s"], rel=0.03)
        assert node["dram_j"] == pytest.approx(20 * iteration["duration_s"], rel=0.03)
        assert node["cpu_reason"] is None
    assert plain["gpu_energy_j"] == [None]
    assert both["gpu_energy_j"][0] == pytest.approx(300 * both["iterations"][0]["duration_s"], rel=0.02)


def test_a_counter_that_wraps_inside_a_window_gives_null_and_a_warning(on_double, powercap, tmp_path):
    root, zones = powercap
    started = tmp_path / "started"

    def jump():
        while not started.exists():
            time.sleep(0.01)
        time.sleep(1.2)
        zones[3].begin_uj = -10_000_000  # starts anew: less than it was, and near the counter's end

    thread = threading.Thread(target=jump)
    zones[3].begin_uj = MAX_UJ // 2
    thread.start()
    case = {"gpu": None, "seconds": 0.5, "windows": 6}
    (measured,) = on_double(case, environ={"RAPL_DOUBLE": str(root), "STARTED": str(started)})
    thread.join()
    nodes = [iteration["energy"]["nodes"][0] for iteration in measured["iterations"]]
    wrapped = [node for node in nodes if node["cpu_package_j"] is None]
    assert wrapped and all("wrapped around" in node["cpu_reason"] for node in wrapped)
    assert "cpu_counter" in {warning["code"] for warning in measured["warnings"]}
    assert nodes[0]["cpu_package_j"] == pytest.approx(75, rel=0.2)
    assert all(0 < node["cpu_package_j"] < 1000 for node in nodes if node not in wrapped)


def test_counters_that_cannot_be_read_are_a_reason(on_double, tmp_path):
    root = tmp_path / "intel-rapl"
    Zone(root / "intel-rapl:0", "package-0", 80)
    (root / "intel-rapl:0" / "energy_uj").unlink()
    (measured,) = on_double({"gpu": None, "seconds": 0.1}, environ={"RAPL_DOUBLE": str(root)})
    (node,) = measured["iterations"][0]["energy"]["nodes"]
    assert node["cpu_package_j"] is None
    assert node["cpu_reason"] == "RAPL counters cannot be read: Error reading package energy"


def test_no_counters_is_a_reason(on_double, tmp_path):
    (measured,) = on_double({"gpu": None, "seconds": 0.1}, environ={"RAPL_DOUBLE": str(tmp_path / "none")})
    (node,) = measured["iterations"][0]["energy"]["nodes"]
    assert node["cpu_package_j"] is None and node["cpu_reason"] == "no RAPL counters on this machine"
