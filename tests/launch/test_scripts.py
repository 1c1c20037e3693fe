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
def test_ends_in_the_launcher_with_the_users_options(name: str) -> None:
    last = (LAUNCH / name).read_text().replace("\\\n", "").splitlines()[-1]
    assert " python3 -m mlenergy.diffusion.executors.torchrun " in last
    assert last.endswith(' -- "$@"')


@pytest.mark.parametrize("name", SBATCH)
def test_a_job_can_be_signalled_requeued_and_continued(name: str) -> None:
    text = (LAUNCH / name).read_text()
    for option in ("--signal=USR1@120", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {option} " in text
    assert " --signal_lead_s=120 " in text  # as in --signal


def test_local_counts_the_visible_gpus(tmp_path: Path) -> None:
    """A python3 that only shows its words stands in for the real one."""
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)

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
        _, launcher, *options, _, word = done.stdout.splitlines()
        assert (launcher, word) == ("mlenergy.diffusion.executors.torchrun", "--a b")
        return options[-1]

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


ARRAY = """
# two runs, and what is no run

  # indented
--a 1
   \t
--b "two words"
"""


@pytest.mark.parametrize(
    ("task", "words"), [(1, ["--a", "1", "--all"]), (2, ["--b", "two words", "--all"]), (3, None)]
)
def test_an_array_counts_lines_that_are_runs(tmp_path: Path, task: int, words: list[str] | None) -> None:
    (tmp_path / "runs.txt").write_text(ARRAY)
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": str(task)}
    command = ["bash", str(LAUNCH / "slurm_array.sbatch"), str(tmp_path / "runs.txt"), "--all"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if words is None:
        assert done.returncode == 2
        assert "has no run 3, but 2 " in done.stderr and done.stderr.endswith("use --array=1-2\n")
    else:
        assert done.returncode == 0, done.stderr
        shown = done.stdout.splitlines()
        assert shown[shown.index("--") + 1 :] == words
