"""Lumina 2: a run on either engine ends whole, and counts its work as it ran where that can be."""

from __future__ import annotations

import json
import sys

import forked
import pytest


@pytest.mark.parametrize("engine", ["xdit", "diffusers"])
def test_a_run_ends_with_its_effects_known(engine, tmp_path):
    model = ["--workload.model_id", "tiny/lumina2", "--workload.height", "64", "--workload.width", "64"]
    more = ["--workload.base_dir", str(tmp_path), "--workload.inference_steps", "2"]
    command = [sys.executable, "-m", "mlenergy.diffusion", "run", "--engine", engine]
    done = forked.run(
        [*command, "--benchmark_iters", "1", "workload:t2i", *model, *more], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*/results.json")
    result = json.loads(path.read_text())
    assert result["effects_reason"] is None and result["executed_failed"] == []
    assert result["executed"]["denoiser_calls_least"] == 4  # with and without the prompt in each step
    assert (result["efficiency"]["reason"] is None) == (engine == "diffusers")
