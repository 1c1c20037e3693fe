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


NO_CUDA = "nvmlSystemGetCudaDriverVersion=999"


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
        (
            "auto",
            None,
            {"fail": "nvmlInitWithFlags=18"},
            "the driver was updated while the old one was loaded",
        ),
        ("auto", "", {"fail": "nvmlInitWithFlags=18"}, "cpu|"),
        ("auto", None, {"cuda": 12000, "driver": "525.60"}, "cuda|Double GPU"),
        ("auto", None, {"cuda": 11080, "driver": "520.61"}, "needs NVIDIA driver 525 or newer, but"),
        (
            "cuda",
            None,
            {"cuda": 11080, "driver": "520.61"},
            "driver 520.61, which serves CUDA up to 11.8; update",
        ),
        (
            "auto",
            None,
            {"cuda": 11080},
            "torch's build for CUDA 11 (docs/clusters.md, The GPU driver); --device cpu",
        ),
        ("cpu", None, {"cuda": 11080}, "cpu|"),
        ("auto", "", {"cuda": 11080}, "cpu|"),
        ("auto", None, {"fail": NO_CUDA, "driver": "520.61"}, "but this node has driver 520.61; update"),
        ("auto", None, {"fail": NO_CUDA, "driver": "525.60"}, "cuda|Double GPU"),
    ],
)
def test_the_device_is_chosen_without_importing_torch(
    python, cuda_build, preference, visible, controls, answer
):
    environ = {**cuda_build, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})}
    assert answer in python(DEVICE.format(preference=preference), environ, **{"gpus": 2, **controls})


@pytest.mark.parametrize(
    ("preference", "device", "visible", "warned"),
    [("auto", "cpu", None, True), ("cpu", "cpu", None, False), ("auto", "cpu", "", False)],
)
def test_a_cpu_build_beside_a_gpu_is_told(python, preference, device, visible, warned):
    code = "from mlenergy.diffusion.environment.device import unused_gpu; "
    code += f"print(unused_gpu({preference!r}, {device!r}))"
    told = python(code, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, gpus=1)
    assert ("has Double GPU, but the installed torch is a CPU build" in told) == warned
    assert warned or told == "None"


@pytest.mark.parametrize(("build", "state"), [("12.8", "fix"), ("11.8", "ok"), (None, "ok")])
def test_the_doctor_compares_driver_and_build(python, build, state):
    code = (
        "from mlenergy.diffusion.environment import doctor as d\n"
        f"d.torch_cuda_build = lambda: {build!r}\n"
        "(f,) = d._driver(); print(f.state, f.finding, f.advice, sep='|')"
    )
    found = python(code, cuda=11080, driver="520.61").split("|")
    assert found[0] == state and found[1].startswith("520.61, serves CUDA up to 11.8; torch is built for ")
    assert ("install torch's build for CUDA 11" in found[2]) == (state == "fix")


@pytest.mark.parametrize(
    "text",
    [
        "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver",
        "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be",
    ],
)
def test_a_gpu_that_torch_cannot_use_ends_the_run_in_one_sentence(monkeypatch, text):
    import torch

    from mlenergy.diffusion.distributed.cluster import Cluster, Rank
    from mlenergy.diffusion.errors import UserError

    def fail(*_, **__):
        raise RuntimeError(text)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", fail if "driver" in text else lambda _: None)
    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(UserError) as raised:
        Cluster.start(Rank(hostname="node1"), "cuda")
    line = str(raised.value)
    assert f"cannot use GPU 0 of node1: {text.splitlines()[0]}" in line
    assert "install the torch build that fits" in line and "kernel errors might" not in line
