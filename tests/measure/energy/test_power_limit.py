"""Power limits through Zeus: set for the run, and restored whatever becomes of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import driver_double
import forked
import pytest
from driver_double import double_controls, uuid

WORKER = Path(__file__).parents[2] / "support" / "energy_worker.py"


@pytest.fixture
def limits(tmp_path):
    """Folder of the double's settings, and what the limits are, in W, by GPU."""
    folder = tmp_path / "settings"
    folder.mkdir()
    for gpu, milliwatts in enumerate((700_000, 650_000, 700_000)):
        (folder / f"limit.{gpu}").write_text(f"{milliwatts}\n")

    def read():
        return [int((folder / f"limit.{gpu}").read_text() or 0) / 1000 for gpu in range(3)]

    return folder, read


def test_the_limit_holds_for_the_run_and_is_restored(on_double, limits, tmp_path):
    folder, read = limits
    log = tmp_path / "calls"
    case = {"gpu": uuid(1), "seconds": 0.2, "power_limit_w": 400, "options": {"energy_gpus": ["1", "2"]}}
    (measured,) = on_double(case, gpus=3, state=folder, log=log)
    assert measured["power_limit_w"] == {uuid(1): 400.0, uuid(2): 400.0}
    assert read() == [700, 650, 700]
    lines = [line for line in log.read_text().splitlines() if "SetPowerManagementLimit" in line]
    calls = [line.rpartition(" ")[0] for line in lines]  # without the process
    assert calls == [f"nvmlDeviceSetPowerManagementLimit {gpu}" for gpu in (1, 2, 1, 2)]


def test_refusals_say_what_to_do_and_leave_the_limits(on_double, limits):
    folder, read = limits
    case = {"gpu": uuid(0), "seconds": 0.1, "power_limit_w": 400}
    unprivileged, too_low, no_gpu, half = on_double(
        {**case, "controls": double_controls(root=0)},
        {**case, "power_limit_w": 150},
        {**case, "gpu": None},
        {
            **case,
            "options": {"energy_gpus": ["0", "1"]},
            "controls": double_controls(fail="nvmlDeviceSetPowerManagementLimit@1=4"),
        },
        gpus=2,
        state=folder,
    )
    start = "--power_limit_w 400 cannot be set: "
    assert unprivileged["error"].startswith(
        start + "ZeusGPUNoPermissionError: Insufficient Permissions; run as root"
    )
    assert too_low["error"] == (
        "--power_limit_w 150 cannot be set: GPU 0 allows 200 to 700 W, not 150 W; "
        "choose another limit or leave it out"
    )
    assert no_gpu["error"].startswith(start + "no GPU takes part in this run")
    assert half["error"].startswith(start)
    assert read() == [700, 650, 700]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_by_a_signal_leaves_the_limits_restored(driver, limits, tmp_path, number):
    folder, read = limits
    case = {"gpu": uuid(0), "seconds": 60, "power_limit_w": 300}
    environment = {
        **driver_double.environment(driver, gpus=1, state=folder),
        "CASES": json.dumps([case]),
        "RESULTS": str(tmp_path / "results.json"),
    }
    child = forked.Popen([sys.executable, str(WORKER)], env=environment, stderr=subprocess.DEVNULL)
    _wait(lambda: read()[0] == 300, "the limit was never set")
    child.send_signal(number)
    child.wait(timeout=30)
    _wait(lambda: read() == [700, 650, 700], "the limit was never restored")


def _wait(is_so, otherwise):
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)
