"""The diffusers engine on two ranks: right as it is, and visibly wrong when it is broken.

Every mode of every family is proven in tests/parity; here is shown that such a test can fail.
"""

import json
import os
import sys
from pathlib import Path

import forked
import pytest

EQUAL = 1e-5
WRONG = 1e-3  # a hundred times that


@pytest.fixture(scope="module")
def differences(tmp_path_factory):
    output = tmp_path_factory.mktemp("native") / "differences.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, str(Path(__file__).parents[1] / "support" / "diffusers_worker.py"), str(output)]
    forked.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    return json.loads(output.read_text())


def of_kind(differences, kind):
    return {case: value for case, value in differences.items() if case.split(" ", 1)[1] == kind}


@pytest.mark.parametrize("kind", ["ulysses", "ring", "cfg", "data", "tensor"])
def test_images_equal_those_of_one_rank(differences, kind):
    found = of_kind(differences, kind)
    assert len(found) >= (1 if kind == "tensor" else 4)
    assert {case: value for case, value in found.items() if value > EQUAL} == {}


@pytest.mark.parametrize("kind", ["ulysses shifted", "ring shifted", "cfg swapped", "tensor spoiled"])
def test_a_rank_that_works_on_the_wrong_part_is_seen(differences, kind):
    found = of_kind(differences, kind)
    assert len(found) >= (1 if kind == "tensor spoiled" else 4)
    assert {case: value for case, value in found.items() if value < WRONG} == {}


def test_diffusers_still_needs_the_routing(differences):
    """Where this fails, diffusers dispatches these models' attention itself: drop the routing there."""
    found = of_kind(differences, "ulysses unrouted")
    assert len(found) == 5
    assert {case: value for case, value in found.items() if value < WRONG} == {}
