"""The search space on a machine with GPUs: the driver double has two of 80 GiB. Nothing is started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import driver_double
import pytest

MLENERGY = str(Path(sys.executable).with_name("mlenergy"))
FLUX = ["workload:t2i", "--workload.model_id", "black-forest-labs/FLUX.1-dev"]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`mlenergy tune --dry_run` on two GPUs, with a torch that says it is built for CUDA."""
    folder = tmp_path_factory.mktemp("gpus")
    driver_double.build(folder)
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("raise RuntimeError('torch was imported')\n")
    (folder / "torch" / "version.py").write_text("cuda: Optional[str] = '12.8'\n")
    environ = {**driver_double.environment(folder, gpus=2, name="Double H"), "PYTHONPATH": str(folder)}

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [MLENERGY, "tune", "--dry_run", "--json", *words, *FLUX]
        return subprocess.run(
            command, cwd=folder, env={**environ, **more}, capture_output=True, text=True, check=False
        )

    return run


def found(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert isinstance(content, dict)
    return content


def test_all_visible_gpus_and_their_memory(dry_run: Run) -> None:
    content = found(dry_run("--batch_sizes", "1", "64", "--attention_backends", "cudnn", "--compile", "off"))
    assert content["machine"] == {
        "device": "cuda",
        "device_name": "Double H",
        "processes": 2,
        "gpu_memory_gib": 80.0,
    }
    assert {entry["devices"] for entry in content["candidates"]} == {1, 2}
    reasons = [group["reason"] for group in content["pruned"]]
    assert any(reason.endswith("GiB of each GPU's memory, and there are 80") for reason in reasons)
    one = found(dry_run("--attention_backends", "cudnn", CUDA_VISIBLE_DEVICES="1"))
    assert {entry["devices"] for entry in one["candidates"]} == {1}


def test_no_more_than_there_are(dry_run: Run) -> None:
    refused = dry_run("--processes", "3")
    assert refused.returncode == 2
    assert refused.stderr == "mlenergy: error: --processes 3, but there are 2 GPUs; use 2 or fewer\n"
