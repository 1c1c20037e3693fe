"""The tiny VAR, and plans of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mlenergy.diffusion.config.args import parse_args
from mlenergy.diffusion.config.resolve import make_plan
from mlenergy.diffusion.engines.autoregressive.var_model import build_var
from mlenergy.diffusion.models.resolve import resolve_model

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def plan_of():
    """A plan of tiny/var, or of another spec."""

    def make(*options, spec=None, world_size=1):
        words = [*options, "--workload.model_id", "tiny/var"]
        chosen = spec or resolve_model("tiny/var")
        return make_plan(parse_args(words, "test"), chosen, world_size, "cpu", "a CPU")

    return make


@pytest.fixture(scope="session")
def model(plan_of):
    return build_var(plan_of(), None, CPU)


@pytest.fixture(scope="session")
def own_spec():
    """The tiny model's sizes under an id that is no tiny model's."""
    return replace(resolve_model("tiny/var"), model_id="own/var")
