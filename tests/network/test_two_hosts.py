"""The same command on two hosts and on one: the same images, and everything with global rank 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import driver_double
import numpy as np
import pytest
from namespace_lan import Lan
from PIL import Image

pytestmark = pytest.mark.full

LAUNCH = Path(__file__).parents[2] / "launch"
WORKLOAD = [
    *("workload:t2i", "--workload.model_id", "tiny/flux", "--workload.dataset", "bundled"),
    *("--workload.batch_size", "2", "--workload.base_dir", "results"),
]
OPTIONS = [
    "--ulysses_degree",
    "2",
    "--ring_degree",
    "2",
    "--device",
    "cpu",
    "--benchmark_iters",
    "2",
    *WORKLOAD,
]
# Two of each host's GPUs take part; n0's third one works for somebody else.
ENERGY = ["--energy_gpus", "0", "1", "--require_energy", "--idle_s", "0.3"]
UUIDS = {"n0": "aaaa", "n1": "bbbb"}
WATTS = {"n0": [100, 200, 999], "n1": [300, 400]}
TIME_LIMIT_S = 180


def _environ(**more: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more}


def _with_gpus(driver: Path, host: str, **more: str) -> dict[str, str]:
    """The environment of a host that has a driver, and GPUs, of its own."""
    power = ";".join(f"const:{watts}" for watts in WATTS[host])
    gpus = driver_double.environment(driver, gpus=len(WATTS[host]), power=power, uuid=UUIDS[host])
    return {**gpus, **_environ(**more), "LD_LIBRARY_PATH": gpus["LD_LIBRARY_PATH"]}


def _result(base: Path) -> tuple[Path, dict[str, Any]]:
    [file] = base.glob("*/results.json")
    return file.parent, json.loads(file.read_text())


def test_two_hosts_make_the_images_of_one_and_every_joule_is_counted_once(
    two_hosts: Lan, tmp_path: Path
) -> None:
    driver = driver_double.build(tmp_path)
    shared, alone = tmp_path / "two", tmp_path / "one"
    for folder in (shared / "results", alone):
        folder.mkdir(parents=True)
    # The second host does not see the first one's results, as without a shared file system.
    hide = ["mount", "-t", "tmpfs", "tmpfs", str(shared / "results")]
    assert two_hosts.run("n1", hide).returncode == 0
    place = {"HEAD": "n0:29400", "NNODES": "2", "NPROC_PER_NODE": "2"}
    words = [str(LAUNCH / "hosts.sh"), *ENERGY, *OPTIONS]
    logs = {host: (tmp_path / f"{host}.log").open("w+") for host in ("n0", "n1")}
    runs = [
        two_hosts.popen(
            host, words, cwd=shared, env=_with_gpus(driver, host, **place), stdout=log, stderr=log
        )
        for host, log in logs.items()
    ]
    codes = [run.wait(timeout=TIME_LIMIT_S) for run in runs]
    assert codes == [0, 0], "\n".join((tmp_path / f"{host}.log").read_text() for host in logs)
    subprocess.run(
        [str(LAUNCH / "local.sh"), *ENERGY, *OPTIONS],
        cwd=alone,
        env=_with_gpus(driver, "n1", NPROC_PER_NODE="4"),
        check=True,
        capture_output=True,
        timeout=TIME_LIMIT_S,
    )
    folder, result = _result(shared / "results")
    folder_alone, result_alone = _result(alone / "results")
    assert [node["hostname"] for node in result["environment"]["nodes"]] == ["n0", "n1"]
    assert len(result_alone["environment"]["nodes"]) == 1
    assert result["prompts"] == result_alone["prompts"]
    assert folder.name == folder_alone.name
    for ours, theirs in zip(result["generation_results"], result_alone["generation_results"], strict=True):
        with Image.open(folder / ours["image"]) as one, Image.open(folder_alone / theirs["image"]) as other:
            assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1  # of 255
    assert not two_hosts.run("n1", ["ls", "-A", "results"], cwd=shared).stdout
    assert "seconds/image" in (tmp_path / "n0.log").read_text()
    assert "seconds/image" not in (tmp_path / "n1.log").read_text()
    _check_joules(result)


def _check_joules(result: dict[str, Any]) -> None:
    """Each GPU's integral is its constant power times the windows; 5 %, as counters are read around them."""
    time_s, energy = result["generation_time"], result["energy_measurement"]
    assert energy["energy_source"] == "nvml_counter"
    gpus = {(gpu["node"], gpu["uuid"]): gpu["energy_j"] for gpu in energy["gpus"]}
    assert gpus == {
        (host, driver_double.uuid(index, UUIDS[host])): pytest.approx(WATTS[host][index] * time_s, rel=0.05)
        for host in ("n0", "n1")
        for index in (0, 1)
    }
    nodes = {node["node"]: node["gpu_energy_j"] for node in energy["nodes"]}
    assert nodes == {
        "n0": pytest.approx(300 * time_s, rel=0.05),
        "n1": pytest.approx(700 * time_s, rel=0.05),
    }
    assert sum(gpus.values()) == pytest.approx(result["total_energy_j"]) == pytest.approx(sum(nodes.values()))
    assert result["total_energy_j"] == pytest.approx(1000 * time_s, rel=0.05)
    idle_w = {gpu["uuid"]: gpu["idle_power_w"] for gpu in energy["gpus"]}
    assert idle_w[driver_double.uuid(1, "bbbb")] == pytest.approx(400)


def test_a_host_that_is_cut_off_ends_the_run_on_both(two_hosts: Lan, tmp_path: Path) -> None:
    environ = _environ(HEAD="n0:29400", NNODES="2", NPROC_PER_NODE="1")
    endless = ["--ulysses_degree", "2", "--device", "cpu", "--benchmark_iters", "3000"]
    options = [*endless, "--hang_timeout_s", "30", *WORKLOAD]
    logs = {host: (tmp_path / f"{host}.log").open("w+") for host in ("n0", "n1")}
    runs = {
        host: two_hosts.popen(
            host, [str(LAUNCH / "hosts.sh"), *options], cwd=tmp_path, env=environ, stdout=log, stderr=log
        )
        for host, log in logs.items()
    }
    limit = time.monotonic() + TIME_LIMIT_S
    while "measured 2/" not in (tmp_path / "n0.log").read_text():
        assert time.monotonic() < limit
        assert runs["n0"].poll() is None, (tmp_path / "n0.log").read_text()
        time.sleep(0.2)
    two_hosts.cut("n1")
    assert runs["n0"].wait(timeout=120) != 0
    # The second host cannot ask what the others know, and still must not keep its GPUs. (Its torchrun, which
    # holds none, tries for some minutes to reach the first.)
    limit = time.monotonic() + 90
    while "-u -m mlenergy.diffusion.benchmark" in two_hosts.run("n1", ["ps", "-eo", "args"]).stdout:
        assert time.monotonic() < limit
        time.sleep(0.5)
    [file] = tmp_path.glob("results/*/status.json")
    status = json.loads(file.read_text())
    assert status["state"] == "failed"
    assert "no progress for" in status["message"]
    assert status["iterations_done"] >= 2
    for rank in (0, 1):
        assert "torch/distributed" in (file.parent / f"stacks_rank{rank}.txt").read_text()
    assert not (file.parent / "results.json").exists()
