"""Plans without a command line."""

import pytest

from mlenergy.diffusion.args import parse_args
from mlenergy.diffusion.models import resolve_model
from mlenergy.diffusion.plan import make_plan


@pytest.fixture
def plan_of():
    def build(model_id, *options, world_size=1, device_name="NVIDIA H200", **workload):
        words = [word for key, value in workload.items() for word in (f"--workload.{key}", str(value))]
        line = [*options, "workload:text-to-image", "--workload.model_id", model_id, *words]
        spec = resolve_model(model_id)
        return make_plan(parse_args(line, "test"), spec, world_size, "cuda", device_name)

    return build
