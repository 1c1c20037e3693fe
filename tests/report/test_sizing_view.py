"""`mlenergy plan`: what a run needs, and other ways to share it out."""

import json
import subprocess
import sys
from pathlib import Path

MLENERGY = [str(Path(sys.executable).with_name("mlenergy")), "plan"]
FLUX = ["workload:t2i", "--workload.model_id", "black-forest-labs/FLUX.1-dev"]


def plan(*options):
    return subprocess.run([*MLENERGY, *options, *FLUX], capture_output=True, text=True, check=False)


def test_json_holds_memory_work_and_combinations():
    done = plan("--json", "--processes", "2", "--gpu_memory_gib", "24")
    assert done.returncode == 0, done.stderr
    sizing = json.loads(done.stdout)["sizing"]
    weights = sum(sizing["memory"]["parameter_bytes"].values())
    assert weights == 2 * sum(sizing["parameters"].values())  # a GPU's bfloat16: two bytes each
    assert sizing["memory"]["peak_bytes"] > weights
    assert sizing["memory"]["fits"] is False
    ways = [way["parallel"] for way in sizing["combinations"]]
    assert ways
    for way in ways:
        product = way["data"] * way["cfg"] * way["pipefusion"] * way["ring"] * way["ulysses"] * way["tensor"]
        assert product == 2


def test_the_table_says_what_fits():
    done = plan("--processes", "2", "--gpu-memory-gib", "80")
    assert done.returncode == 0, done.stderr
    assert "fits into 80 GiB" in done.stdout
    assert "Ways to use 2 processes" in done.stdout
    assert "Ulysses 2 x ring 1" in done.stdout


def test_no_processes_are_refused():
    done = plan("--processes", "0")
    assert done.returncode == 2
    assert done.stderr.startswith("mlenergy: error: --processes 0")
