"""Calls of the denoiser on every rank of every mode are those of the plan."""

from __future__ import annotations

import json
import os
import sys

import forked
import pytest

XDIT, DIFFUSERS = ("--engine", "xdit"), ("--engine", "diffusers")
CASES = [
    ("tiny/flux", XDIT, "--ulysses_degree 2"),
    ("tiny/flux", XDIT, "--ring_degree 2"),
    ("tiny/flux", XDIT, "--tensor_parallel_degree 2"),
    ("tiny/flux", XDIT, "--pipefusion_parallel_degree 2"),
    ("tiny/flux", XDIT, "--data_parallel_degree 2"),
    ("tiny/sd3", XDIT, "--use_cfg_parallel"),
    ("tiny/sd3", XDIT, "--pipefusion_parallel_degree 2 --num_pipeline_patch 4 --warmup_steps 2"),
    ("tiny/pixart-sigma", XDIT, "--use_cfg_parallel"),
    ("tiny/pixart-alpha", XDIT, "--ulysses_degree 2"),
    ("tiny/hunyuandit", XDIT, "--pipefusion_parallel_degree 2"),
    ("tiny/sdxl", XDIT, "--use_cfg_parallel"),
    ("tiny/sd3", DIFFUSERS, "--use_cfg_parallel"),
    ("tiny/flux", DIFFUSERS, "--ulysses_degree 2"),
    ("tiny/sd1.5", DIFFUSERS, "--data_parallel_degree 2"),
]


@pytest.mark.full
@pytest.mark.parametrize(("model", "engine", "mode"), CASES, ids=lambda part: str(part))
def test_two_ranks_do_the_work_that_was_planned(tmp_path, model, engine, mode):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = [*engine, *mode.split(), "--device", "cpu", "--benchmark_iters", "1", "--warmup_iters", "0"]
    words += ["workload:t2i", "--workload.model_id", model, "--workload.dataset", "bundled"]
    words += ["--workload.height", "128", "--workload.width", "128", "--workload.batch_size", "2"]
    words += ["--workload.inference_steps", "4", "--workload.base_dir", str(tmp_path)]
    command = [*torchrun, "-m", "mlenergy.diffusion.benchmark", *words]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = forked.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = tmp_path.iterdir()
    result = json.loads((folder / "results.json").read_text())
    executed = result["executed"]
    assert result["executed_failed"] == [] and executed["reason"] is None
    assert executed["denoiser_calls_planned"] == executed["denoiser_calls_least"]
    assert executed["denoiser_calls_planned"] == executed["denoiser_calls_most"]
