"""Plans for a GPU, without a command line and by it."""

import pytest

from mlenergy.diffusion.cli import main
from mlenergy.diffusion.config.args import read_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.models.resolve import resolve_model


@pytest.fixture
def plan_of():
    def build(model_id, *options, **workload):
        words = [word for key, value in workload.items() for word in (f"--workload.{key}", str(value))]
        model = resolve_model(model_id)
        workload_of = f"workload:text-to-{model.family.output}"
        line = [*options, workload_of, "--workload.model_id", model_id, *words]
        return make_plan(read_args(line, "test"), model, 1, "cuda", "NVIDIA H100 80GB HBM3")

    return build


@pytest.fixture
def run(capsys, monkeypatch):
    """`mlenergy plan` of FLUX.1-dev: its exit code and what it printed."""

    def run(*words):
        argv = [
            "mlenergy",
            "plan",
            *words,
            "workload:t2i",
            "--workload.model_id",
            "black-forest-labs/FLUX.1-dev",
        ]
        monkeypatch.setattr("sys.argv", argv)
        return main(), capsys.readouterr()

    return run
