"""Lumina 2: a run on either engine ends whole, and counts its work as it ran."""

from __future__ import annotations

import json
import sys

import forked
import pytest


def test_a_run_ends_with_its_effects_and_work_known(tmp_path):
    model = ["--workload.model_id", "tiny/lumina2", "--workload.height", "64", "--workload.width", "64"]
    work = []
    for engine in ("xdit", "diffusers"):
        more = ["--workload.base_dir", str(tmp_path / engine), "--workload.inference_steps", "2"]
        command = [sys.executable, "-m", "mlenergy.diffusion", "run", "--engine", engine]
        done = forked.run(
            [*command, "--benchmark_iters", "1", "workload:t2i", *model, *more],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        (path,) = (tmp_path / engine).glob("*/results.json")
        result = json.loads(path.read_text())
        assert result["effects_reason"] is None and result["executed_failed"] == []
        assert result["executed"]["denoiser_calls_least"] == 4  # with and without the prompt in each step
        assert result["efficiency"]["reason"] is None
        work.append(result["efficiency"]["stage_tflops"])
    # Both engines have read the same prompts.
    assert work[0] == {stage: pytest.approx(tera, rel=1e-6) for stage, tera in work[1].items()}
    assert min(work[0].values()) > 0
