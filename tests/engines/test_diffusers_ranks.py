"""The diffusers engine on two ranks: right as it is, and visibly wrong when it is broken.

Every mode of every family is proven in tests/parity; here is shown that such a test can fail. `make test`
takes one transformer whose attention diffusers dispatches and one that is routed, and the UNets.
"""

import json
import os
import sys
from pathlib import Path

import forked
import pytest

EQUAL = 1e-5
WRONG = 1e-3  # a hundred times that


QUICK = ("tiny/flux", "tiny/sd3")
ALL = (*QUICK, "tiny/sd3.5", "tiny/pixart-alpha", "tiny/pixart-sigma", "tiny/hunyuandit")


@pytest.fixture(
    scope="module", params=[QUICK, pytest.param(ALL, marks=pytest.mark.full)], ids=["quick", "all"]
)
def models(request):
    return request.param


@pytest.fixture(scope="module")
def differences(models, tmp_path_factory):
    output = tmp_path_factory.mktemp("native") / "differences.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, str(Path(__file__).parents[1] / "support" / "diffusers_worker.py"), str(output)]
    command += models
    forked.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    return json.loads(output.read_text())


def of_kind(differences, kind):
    return {case: value for case, value in differences.items() if case.split(" ", 1)[1] == kind}


def number_of(mode, models):
    """Cases of a mode."""
    guided = len({"tiny/sd3", "tiny/hunyuandit"}.intersection(models))
    return {"ulysses": len(models), "ring": len(models), "tensor": 1}.get(mode, guided + 2)


@pytest.mark.parametrize("kind", ["ulysses", "ring", "cfg", "data", "tensor"])
def test_images_equal_those_of_one_rank(differences, models, kind):
    found = of_kind(differences, kind)
    assert len(found) == number_of(kind, models)
    assert {case: value for case, value in found.items() if value > EQUAL} == {}


@pytest.mark.parametrize("kind", ["ulysses shifted", "ring shifted", "cfg swapped", "tensor spoiled"])
def test_a_rank_that_works_on_the_wrong_part_is_seen(differences, models, kind):
    found = of_kind(differences, kind)
    assert len(found) == number_of(kind.split()[0], models)
    assert {case: value for case, value in found.items() if value < WRONG} == {}


def test_diffusers_still_needs_the_routing(differences, models):
    """Where this fails, diffusers dispatches these models' attention itself: drop the routing there."""
    found = of_kind(differences, "ulysses unrouted")
    assert len(found) == len(models) - 1  # but for FLUX
    assert {case: value for case, value in found.items() if value < WRONG} == {}
