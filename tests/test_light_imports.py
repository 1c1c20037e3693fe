"""What must answer at once does not import torch, nor anything that takes as long."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "xfuser", "diffusers", "transformers", "datasets", "zeus", "scipy", "pandas", "pyarrow")


def modules_after(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('MODULES', *sys.modules)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("MODULES")[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "mlenergy.diffusion.cli",
        "mlenergy.diffusion.benchmark",
        "mlenergy.diffusion.config.args",
        "mlenergy.diffusion.models",
        "mlenergy.diffusion.config.plan",
        "mlenergy.diffusion.config.resolve",
        "mlenergy.diffusion.prompts.sampling",
        "mlenergy.diffusion.results.build",
        "mlenergy.diffusion.environment",
        "mlenergy.diffusion.results.media",
        "mlenergy.diffusion.results.collect",
        "mlenergy.diffusion.report.index_command",
        "mlenergy.diffusion.report.show_command",
        "mlenergy.diffusion.report.compare_command",
        "mlenergy.diffusion.report.quality_command",
        "mlenergy.diffusion.studies.command",
    ],
)
def test_importing_is_light(module):
    assert not modules_after(f"import {module}").intersection(HEAVY)


@pytest.mark.parametrize(
    "argv",
    [
        ["models"],
        ["models", "--json"],
        ["plan", "--ulysses_degree", "2", "workload:t2i", "--workload.model_id", "tiny/flux"],
        ["plan", "--json", "workload:t2i", "--workload.model_id", "black-forest-labs/FLUX.1-dev"],
    ],
)
def test_planning_is_light(argv):
    run = (
        f"import sys\nsys.argv = ['mlenergy', *{argv!r}]\n"
        "from mlenergy.diffusion.cli import main\nassert main() == 0"
    )
    assert not modules_after(run).intersection(HEAVY)


def test_a_dry_run_of_the_benchmark_is_light():
    argv = ["--dry_run", "workload:t2i", "--workload.model_id", "tiny/flux"]
    run = (
        f"import sys\nsys.argv = ['benchmark', *{argv!r}]\n"
        "from mlenergy.diffusion.benchmark import main\nassert main() == 0"
    )
    assert not modules_after(run).intersection(HEAVY)
