"""The scripts of launch/: their text, and those that need no Slurm. tests/slurm runs the others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted(file.name for file in LAUNCH.iterdir())
SBATCH = [name for name in SCRIPTS if name.endswith(".sbatch")]


def test_all_are_there() -> None:
    slurm = ["slurm_array.sbatch", "slurm_multi_node.sbatch", "slurm_single_node.sbatch"]
    assert ["hosts.sh", "local.sh", *slurm] == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing(name: str, shellcheck: str) -> None:
    done = subprocess.run([shellcheck, str(LAUNCH / name)], capture_output=True, text=True)
    assert not done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_ends_in_the_benchmark_with_the_users_options(name: str) -> None:
    assert (LAUNCH / name).read_text().endswith('-m mlenergy.diffusion.benchmark "$@"\n')


@pytest.mark.parametrize("name", SBATCH)
def test_a_job_can_be_signalled_requeued_and_continued(name: str) -> None:
    text = (LAUNCH / name).read_text()
    for option in ("--signal=USR1@120", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {option} " in text
    # torchrun would die of a signal that it does not handle.
    assert "--signals_to_handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1" in text


def test_local_counts_the_visible_gpus(tmp_path: Path) -> None:
    """A torchrun that only shows its words stands in for the real one."""
    torchrun = tmp_path / "torchrun"
    torchrun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    torchrun.chmod(0o755)

    def processes(**environ: str) -> str:
        clean = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "NPROC_PER_NODE")}
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(
            [str(LAUNCH / "local.sh"), "--a b"],
            env={**clean, **path, **environ},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.endswith("mlenergy.diffusion.benchmark\n--a b\n")
        return done.stdout.splitlines()[2]

    assert processes(CUDA_VISIBLE_DEVICES="3,1,0") == "--nproc_per_node=3"
    assert processes(CUDA_VISIBLE_DEVICES="3,1,0", NPROC_PER_NODE="2") == "--nproc_per_node=2"
    nvidia_smi = tmp_path / "nvidia-smi"
    nvidia_smi.write_text("#!/bin/sh\necho GPU 0: A\necho GPU 1: A\n")
    nvidia_smi.chmod(0o755)
    assert processes() == "--nproc_per_node=2"
    nvidia_smi.write_text("#!/bin/sh\nexit 9\n")
    assert processes() == "--nproc_per_node=1"


def test_hosts_says_what_it_needs() -> None:
    done = subprocess.run(
        [str(LAUNCH / "hosts.sh")], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode != 0
    assert "set HEAD to HOST:PORT" in done.stderr
