"""Two different GPUs that CUDA numbers the other way round than the driver library: names go by UUID."""

from __future__ import annotations

import os
import subprocess
import sys

import driver_double
import pytest
from driver_double import uuid

SLOW, FAST = "Slow GPU", "Fast GPU"  # in the order of the PCI bus
PLANNED = "from mlenergy.diffusion.environment import device; print(*device.detect_device(), sep='|')"
USED = (
    "import torch; from mlenergy.diffusion.environment import device, gpus; "
    "used = gpus.used_gpu(torch.device('cuda', 0)); "
    "planned = device.detect_device('cuda')[1]; print(used.name, used.uuid, sep='|'); "
    "device.check_device_name(planned, torch.device('cuda', 0)); "
    "from mlenergy.diffusion.measure.energy import meter; print(meter.rank_gpu(torch.device('cuda', 0))[0])"
)
TORCH = """
from types import SimpleNamespace
class device(SimpleNamespace):
    def __init__(self, type, index): super().__init__(type=type, index=index)
uuids = {uuids!r}
cuda = SimpleNamespace(get_device_properties=lambda d: SimpleNamespace(uuid=uuids[d.index]))
"""


@pytest.fixture(scope="module")
def doubles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doubles")
    return driver_double.build_cuda(driver_double.build(folder))


@pytest.fixture
def python(doubles, tmp_path):
    """Run code where the driver library shows SLOW, FAST and CUDA numbers FAST first.

    `torch` is a module that knows the properties of CUDA's devices, `seen` their nvidia-smi indices.
    """

    def run(code, seen=(1, 0), cuda_order="1,0", name=f"{SLOW};{FAST}", **environ):
        package = tmp_path / "torch"
        package.mkdir(exist_ok=True)
        uuids = [uuid(index).removeprefix("GPU-") for index in seen]
        (package / "__init__.py").write_text(TORCH.format(uuids=uuids))
        (package / "version.py").write_text("__version__ = '2.13.0'\ncuda: Optional[str] = '12.8'\n")
        environment = {
            **driver_double.environment(doubles, gpus=2, name=name),
            "CUDA_DOUBLE_ORDER": cuda_order,
            "PYTHONPATH": str(tmp_path),
            **environ,
        }
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    return run


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, FAST),
        ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, FAST),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, SLOW),
        ({"CUDA_VISIBLE_DEVICES": "0"}, FAST),
        ({"CUDA_VISIBLE_DEVICES": "1"}, SLOW),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, SLOW),
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, FAST),
        ({"CUDA_VISIBLE_DEVICES": uuid(0)}, SLOW),
        ({"CUDA_VISIBLE_DEVICES": uuid(1)}, FAST),
    ],
)
def test_the_planned_name_is_that_of_the_gpu_that_cuda_takes(python, environ, name):
    assert python(PLANNED, **environ) == f"cuda|{name}"


def test_cuda_is_not_asked_where_all_gpus_are_alike(python):
    assert python(PLANNED, name="One GPU", cuda_order="") == "cuda|One GPU"


def test_plan_results_and_energy_take_the_gpu_that_torch_computes_on(python):
    name, unique, read = python(USED).replace("\n", "|").split("|")
    assert (name, unique, read) == (FAST, uuid(1), uuid(1))


def test_a_run_on_another_gpu_than_planned_for_is_refused(python):
    """CUDA did not answer, so the plan counted along the bus; the device itself tells."""
    text = python(f"import sys; sys.stdout = sys.stderr; {USED}", cuda_order="")
    assert f"the plan is for {SLOW}, and this process computes on {FAST} ({uuid(1)})" in text
    assert f"set CUDA_VISIBLE_DEVICES={uuid(1)}" in text


def test_cudas_order_without_a_driver_is_unknown():
    command = [sys.executable, "-m", "mlenergy.diffusion.environment.cuda_order"]
    environ = {**os.environ, "LD_LIBRARY_PATH": ""}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1) and (done.returncode == 0 or not done.stdout)
