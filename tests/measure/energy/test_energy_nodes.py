"""Two nodes of two ranks, each node with a driver of its own: every joule once."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import driver_double
import forked
import pytest
from driver_double import uuid

WORKER = Path(__file__).parents[2] / "support" / "energy_worker.py"
POWER = {"left": "const:100;const:200;const:999", "right": "const:300;const:400;const:999"}


@pytest.fixture
def two_nodes(driver, tmp_path):
    """Run a case on four ranks over two nodes; give global rank 0's figures."""

    def run(cases_of_rank, **more):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        children = []
        for rank in range(4):
            node, begin = ("left", "aaaa") if rank < 2 else ("right", "bbbb")
            environment = {
                **driver_double.environment(
                    driver, gpus=3, power=POWER[node], uuid=begin, log=tmp_path / f"calls{rank}", **more
                ),
                "CASES": json.dumps(cases_of_rank(rank)),
                "RESULTS": str(tmp_path / "results.json"),
                "HOSTNAME_DOUBLE": node,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank % 2),
                "WORLD_SIZE": "4",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            }
            children.append(
                forked.Popen(
                    [sys.executable, str(WORKER)], env=environment, stderr=subprocess.PIPE, text=True
                )
            )
        errors = [child.communicate(timeout=240)[1] for child in children]
        assert all(child.returncode == 0 for child in children), "\n".join(errors)
        return json.loads((tmp_path / "results.json").read_text())

    return run


def sampling_processes(calls):
    """GPUs that each sampling process of a rank read, in order of start; no other process asks for clocks."""
    gpus = {}
    for line in calls.read_text().splitlines():
        symbol, gpu, process = line.split()
        if symbol == "nvmlDeviceGetClockInfo":
            gpus.setdefault(process, set()).add(int(gpu))
    return list(gpus.values())


def test_two_nodes_sum_to_the_known_joules_and_an_idle_gpu_is_not_counted(two_nodes, tmp_path):
    def cases(rank):
        begin = "aaaa" if rank < 2 else "bbbb"
        own = {"gpu": uuid(rank % 2, begin), "seconds": 2.0, "windows": 2, "options": {"idle_s": 0.3}}
        named = {**own, "windows": 1, "seconds": 0.5, "options": {"energy_gpus": ["2"]}}
        unknown = {**named, "options": {"energy_gpus": ["5"]}}
        return [own, named, unknown]

    measured, named, unknown = two_nodes(cases)
    for iteration in measured["iterations"]:
        duration_s, energy = iteration["duration_s"], iteration["energy"]
        watts = {gpu["uuid"]: gpu["energy_j"] / duration_s for gpu in energy["gpus"]}
        assert watts == {
            uuid(0): pytest.approx(100, rel=0.02),
            uuid(1): pytest.approx(200, rel=0.02),
            uuid(0, "bbbb"): pytest.approx(300, rel=0.02),
            uuid(1, "bbbb"): pytest.approx(400, rel=0.02),
        }
        nodes = {node["node"]: node["gpu_energy_j"] for node in energy["nodes"]}
        assert nodes["left"] == pytest.approx(300 * duration_s, rel=0.02)
        assert nodes["right"] == pytest.approx(700 * duration_s, rel=0.02)
        assert {gpu["uuid"]: gpu["node"] for gpu in energy["gpus"]}[uuid(1, "bbbb")] == "right"
    total_j = sum(measured["gpu_energy_j"])
    duration_s = sum(iteration["duration_s"] for iteration in measured["iterations"])
    assert total_j == pytest.approx(1000 * duration_s, rel=0.01)
    assert measured["idle_power_w"][uuid(1, "bbbb")] == pytest.approx(400)
    assert set(measured["timeline"]["node"]) == {"left", "right"}
    assert [memory["rank"] for memory in measured["memory"]] == [0, 1, 2, 3]

    (iteration,) = named["iterations"]
    assert {gpu["uuid"] for gpu in iteration["energy"]["gpus"]} == {uuid(2), uuid(2, "bbbb")}
    assert "--energy_gpus 5 is no GPU of this run's nodes" in unknown["error"]

    # One process of a node samples all of its GPUs: for the idle power, then for each case's windows.
    one_a_node = [[{0, 1}, {0, 1}, {2}], [], [{0, 1}, {0, 1}, {2}], []]
    assert [sampling_processes(tmp_path / f"calls{rank}") for rank in range(4)] == one_a_node
