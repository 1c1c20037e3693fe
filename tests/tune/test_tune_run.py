"""`mlenergy tune` as a user meets it: real runs of a tiny model, joules by the driver double."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import driver_double
import forked
import pytest

TUNE = [str(Path(sys.executable).with_name("mlenergy")), "tune", "--folder", "tuned", "--processes", "2"]
TUNE += ["--engine", "diffusers", "--attention_backend", "auto", "--compile", "off", "--degrees", "ulysses=1"]
TUNE += ["--energy_gpus", "all", "--idle_s", "0", "--warmup_iters", "0", "--benchmark_iters", "2"]
TINY = ["workload:t2i", "--workload.model_id", "tiny/flux", "--workload.dataset", "bundled"]
WATTS = 250


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = driver_double.build(tmp_path_factory.mktemp("double"))
    return {**driver_double.environment(folder, gpus=1, power=f"const:{WATTS}"), "OMP_NUM_THREADS": "1"}


def tune(environ: dict[str, str], cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*TUNE, *words, *TINY]
    return forked.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=300)


def known(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "tuned" / "tune.json").read_text())
    assert isinstance(content, dict)
    return content


def test_a_search_stopped_continued_and_done(environ: dict[str, str], tmp_path: Path) -> None:
    words = ["--batch_sizes", "1", "2", "--rounds", "1"]
    process = forked.Popen(
        [*TUNE, *words, *TINY], cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "start 1, 2 iterations" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert known(tmp_path)["ended"] == "stopped by SIGTERM; the same command continues"
    assert known(tmp_path)["counts"]["not measured"] == 2

    done = tune(environ, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    content = known(tmp_path)
    assert content["ended"] == "rounds"
    assert content["objectives"] == ["seconds_per_image", "joules_per_image"]
    assert {entry["settings"]["batch_size"] for entry in content["candidates"]} == {1, 2}
    assert all(entry["state"] != "not measured" for entry in content["candidates"])
    for entry in content["candidates"]:
        [start] = entry["starts"]
        result = json.loads((tmp_path / start["folder"] / "results.json").read_text())
        assert result["configuration"]["benchmark_iters"] == len(result["iterations"]) == 2
        assert result["configuration"]["batch_size"] == entry["settings"]["batch_size"]
        assert entry["seconds_per_image"]["mean"] == pytest.approx(result["avg_time_per_image"])
        # Begin and end of a window are read a moment outside of its clock.
        seconds = entry["seconds_per_image"]["mean"]
        assert entry["joules_per_image"]["mean"] == pytest.approx(WATTS * seconds, rel=0.05)
        assert not (tmp_path / start["folder"] / "image_outputs").exists()
    number = content["front"][0]
    [command] = [entry["command"] for entry in content["candidates"] if entry["number"] == number]
    assert f"#{number}" in done.stdout
    assert command in done.stdout
    assert "seconds and GPU joules per image" in done.stdout

    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("results.json")}
    assert len(before) == 2
    again = tune(environ, tmp_path, *words, "--json")
    assert again.returncode == 0, again.stderr
    assert "2 of them measured before" in again.stderr
    assert "start 1" not in again.stderr
    assert json.loads(again.stdout)["candidates"] == content["candidates"]
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("results.json")} == before


def test_where_all_fail_it_says_why(environ: dict[str, str], tmp_path: Path) -> None:
    words = ["--batch_sizes", "1", "--power_limits_w", "1"]
    failed = tune(environ, tmp_path, *words)
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith(
        "mlenergy: error: none of 1 candidates could be measured"
    )
    [entry] = known(tmp_path)["candidates"]
    assert entry["state"] == "failed"
    assert "1 W" in entry["failure"]
    assert entry["failure"] in failed.stderr.splitlines()[-1]
    # It is not tried again by itself.
    assert "start 1" not in tune(environ, tmp_path, *words).stderr


def test_importing_is_light() -> None:
    program = (
        "import mlenergy.diffusion.tune, sys; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], env=os.environ, check=False).returncode == 0
