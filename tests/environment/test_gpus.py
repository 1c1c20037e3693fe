"""The environment record and the choice of device, on the driver double."""

from __future__ import annotations

import json
import subprocess
import sys

import driver_double
import pytest
from driver_double import uuid

RECORD = (
    "import json; from mlenergy.diffusion.environment.record import environment_record; "
    "print(json.dumps(environment_record([])))"
)
DEVICE = (
    "from mlenergy.diffusion.environment.device import detect_device as d; print(*d({preference!r}), sep='|')"
)


@pytest.fixture
def python(driver):
    """Run a line of Python on the double and give what it prints."""

    def run(code, environ=None, **controls):
        environment = {**driver_double.environment(driver, **controls), **(environ or {})}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    return run


@pytest.fixture
def cuda_build(tmp_path):
    """PYTHONPATH with a torch whose version.py says CUDA, and that must not be imported."""
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('torch was imported')\n")
    (package / "version.py").write_text("__version__ = '2.13.0'\ncuda: Optional[str] = '12.8'\n")
    return {"PYTHONPATH": str(tmp_path)}


def test_the_record_holds_what_changes_a_gpus_numbers(python, tmp_path):
    (tmp_path / "limit.1").write_text("450000\n")
    (tmp_path / "persistence.1").write_text("0\n")
    record = json.loads(python(RECORD, gpus=2, mig="0;1", name="Double H", state=tmp_path))
    (node,) = record["nodes"]
    assert (node["driver"], node["cuda_driver"], node["gpu_reason"]) == ("999.01", "13.0", None)
    first, second = node["gpus"]
    assert (first["uuid"], first["name"], first["mig"]) == (uuid(0), "Double H", False)
    assert (first["power_limit_w"], first["persistence_mode"]) == (700, True)
    assert (second["power_limit_w"], second["power_limit_default_w"]) == (450, 700)
    assert (second["power_limit_min_w"], second["power_limit_max_w"]) == (200, 700)
    assert (second["persistence_mode"], second["mig"], second["temperature_c"]) == (False, True, 41)
    assert (first["sm_clock_mhz"], first["sm_clock_max_mhz"], first["memory_clock_mhz"]) == (1500, 1980, 2600)


def test_a_figure_that_a_driver_does_not_give_is_null(python):
    fail = "nvmlDeviceGetPowerManagementLimit=3,nvmlDeviceGetPersistenceMode=3,nvmlDeviceGetMigMode=3"
    record = json.loads(python(RECORD, fail=fail))
    gpu = record["nodes"][0]["gpus"][0]
    assert (gpu["power_limit_w"], gpu["persistence_mode"], gpu["mig"]) == (None, None, False)
    assert gpu["power_limit_default_w"] == 700


@pytest.mark.parametrize(
    ("preference", "visible", "controls", "answer"),
    [
        ("auto", None, {}, "cuda|Double GPU"),
        ("cuda", "1,0", {}, "cuda|Double GPU"),
        ("cpu", None, {}, "cpu|"),
        ("auto", "", {}, "cpu|"),
        ("auto", None, {"fail": "nvmlInitWithFlags=9"}, "cpu|"),
        ("cuda", "", {}, "no CUDA device can be used: CUDA_VISIBLE_DEVICES leaves no GPU; use --device cpu"),
        ("cuda", None, {"fail": "nvmlInitWithFlags=9"}, "Driver Not Loaded; use --device cpu"),
        ("cuda", None, {"gpus": 0}, "the driver finds no GPU; use --device cpu"),
    ],
)
def test_the_device_is_chosen_without_importing_torch(
    python, cuda_build, preference, visible, controls, answer
):
    environ = {**cuda_build, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})}
    assert answer in python(DEVICE.format(preference=preference), environ, **{"gpus": 2, **controls})
