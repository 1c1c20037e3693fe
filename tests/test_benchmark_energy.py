"""A whole run on the driver double: its joules come out as the double's formula says."""

import json
import sys

import driver_double
import forked
import pyarrow.parquet as pq
import pytest

from mlenergy.diffusion.environment.gpu_users import gpu_users

RUN = [sys.executable, "-m", "mlenergy.diffusion.benchmark", "--engine", "diffusers", "--energy_gpus", "all"]
RUN += ["--idle_s", "0.5", "--sample_period_s", "0.05", "--benchmark_iters", "3", "workload:t2i"]
RUN += ["--workload.model_id", "tiny/flux", "--workload.dataset", "bundled", "--workload.base_dir"]


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    return driver_double.build(tmp_path_factory.mktemp("double"))


def run(double, base, *options, **controls):
    environ = driver_double.environment(double, **controls)
    return forked.run(
        [*RUN, str(base), *options], env=environ, capture_output=True, text=True, check=False, timeout=300
    )


def test_joules_of_a_whole_run(double, tmp_path):
    with gpu_users([driver_double.uuid(1)], "a run beside it") as beside:
        done = run(double, tmp_path, "--require_energy", gpus=2, power="const:300;const:100")
        (line,) = beside.others()
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    result = json.loads((folder / "results.json").read_text())
    (warning,) = [one["message"] for one in result["warnings"] if one["code"] == "shared_gpu"]
    assert "a run beside it" in warning and warning.endswith(f"used {driver_double.uuid(1)} at the same time")
    assert folder.name in line and warning in done.stdout
    energy = result["energy_measurement"]
    assert energy["energy_source"] == "nvml_counter"
    # Begin and end are read a moment outside of the clock.
    assert result["total_energy_j"] == pytest.approx(400 * result["generation_time"], rel=0.05)
    assert {gpu["uuid"]: gpu["idle_power_w"] for gpu in energy["gpus"]} == pytest.approx(
        {driver_double.uuid(0): 300, driver_double.uuid(1): 100}
    )
    assert energy["energy_above_idle_j"] == pytest.approx(0, abs=0.05 * result["total_energy_j"])
    assert "J per image" in done.stdout
    samples = pq.read_table(folder / "timeline.parquet")
    assert set(samples["uuid"].to_pylist()) == {driver_double.uuid(0), driver_double.uuid(1)}
    assert set(samples["power_w"].to_pylist()) == {300.0, 100.0}


def test_a_refused_counter_ends_a_run_that_requires_energy_before_it_loads(double, tmp_path):
    fail = {"fail": "nvmlDeviceGetTotalEnergyConsumption=999"}
    done = run(double, tmp_path, "--require_energy", gpus=1, power="const:300", **fail)
    assert done.returncode == 2
    assert "--require_energy was given, but energy cannot be read" in done.stderr
    assert "warm-up" not in done.stderr
