"""A whole run on a CPU with secrets around it: none is in any file that it writes, nor on the terminal."""

from __future__ import annotations

import os
import sys

import forked

SECRETS = {
    "HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz012345",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
    "CUDA_PROXY": "https://someone:hunter2hunter2@proxy.example:8080",
    "NCCL_AUTH_TOKEN": "swordfish-99",
}
HIDDEN = (
    *(value for name, value in SECRETS.items() if name != "CUDA_PROXY"),
    "hunter2hunter2",
)


def test_no_secret_is_in_any_file_of_a_run(tmp_path):
    command = [
        *(sys.executable, "-m", "mlenergy.diffusion.benchmark", "--engine", "diffusers", "--device", "cpu"),
        *("--warmup_iters", "0", "--benchmark_iters", "1", "workload:text-to-image"),
        *("--workload.model_id", "tiny/flux", "--workload.dataset", "bundled"),
        *("--workload.height", "64", "--workload.width", "64", "--workload.inference_steps", "1"),
        *("--workload.base_dir", str(tmp_path / "run")),
    ]
    environment = {**os.environ, **SECRETS, "OMP_NUM_THREADS": "1"}
    done = forked.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"results.json", "requests.json", "driver_log.txt"} <= {path.name for path in files}
    texts = {str(path): path.read_bytes() for path in files}
    texts |= {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    for place, content in texts.items():
        for secret in HIDDEN:
            assert secret.encode() not in content, f"{secret} is in {place}"
    results = next(content for place, content in texts.items() if place.endswith("results.json"))
    assert b"[redacted]" in results and b"proxy.example" in results
