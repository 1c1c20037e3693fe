"""Assignment of GPUs to readers, as a pure function of the ranks' views."""

from __future__ import annotations

import pytest

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.energy.readers import NO_GPU, RankView, assign


def gpus(begin, count, mig=False):
    return tuple(Gpu(index, f"GPU-{begin}{index}", "Double", mig) for index in range(count))


def view(rank, uuid, shown, node="a", machine="m", reason=None, gpu_reason=None):
    return RankView(rank, node, machine, uuid, reason, shown, gpu_reason)


def reads(roles):
    return {rank: [gpu.uuid for gpu in mine] for rank, mine in roles.gpus.items()}


def test_the_first_rank_of_a_node_reads_all_gpus_that_its_ranks_use():
    shown = gpus("a", 4)
    roles = assign([view(0, "GPU-a3", shown), view(1, "GPU-a1", shown)])
    assert reads(roles) == {0: ["GPU-a1", "GPU-a3"]} and roles.reason is None


def test_two_ranks_on_one_gpu_count_once():
    shown = gpus("a", 2)
    assert reads(assign([view(0, "GPU-a1", shown), view(1, "GPU-a1", shown)])) == {0: ["GPU-a1"]}


def test_every_node_has_its_reader():
    a, b = gpus("a", 2), gpus("b", 2)
    views = [view(0, "GPU-a0", a), view(1, "GPU-a1", a)]
    views += [view(2, "GPU-b0", b, "b"), view(3, "GPU-b1", b, "b")]
    roles = assign(views)
    assert reads(roles) == {0: ["GPU-a0", "GPU-a1"], 2: ["GPU-b0", "GPU-b1"]}
    assert roles.first_ranks == (0, 2)


def test_machines_of_one_name_are_two_nodes():
    views = [view(0, "GPU-a0", gpus("a", 1)), view(1, "GPU-b0", gpus("b", 1), machine="n")]
    assert reads(assign(views)) == {0: ["GPU-a0"], 1: ["GPU-b0"]}
    assert assign(views).first_ranks == (0, 1)


def test_where_a_scheduler_hides_gpus_each_rank_reads_its_own():
    views = [view(0, "GPU-a0", gpus("a", 1)), view(1, "GPU-b0", gpus("b", 1))]
    assert reads(assign(views)) == {0: ["GPU-a0"], 1: ["GPU-b0"]}
    assert assign(views).first_ranks == (0,)


def test_two_containers_that_show_one_gpu_count_it_once():
    shown = gpus("a", 1)
    views = [view(0, "GPU-a0", shown, "one"), view(1, "GPU-a0", shown, "two")]
    assert reads(assign(views)) == {0: ["GPU-a0"]}


def test_named_devices_of_every_node():
    a, b = gpus("a", 2), gpus("b", 2)
    views = [view(0, None, a), view(1, None, b, "b")]
    assert reads(assign(views, ["1"])) == {0: ["GPU-a1"], 1: ["GPU-b1"]}
    assert reads(assign(views, ["GPU-b0", "GPU-a1"])) == {0: ["GPU-a1"], 1: ["GPU-b0"]}
    assert reads(assign(views, ["all"])) == {0: ["GPU-a0", "GPU-a1"], 1: ["GPU-b0", "GPU-b1"]}
    with pytest.raises(UserError, match="--energy_gpus 2 is no GPU of this run's nodes; there are: 0 "):
        assign(views, ["2"])


def test_a_named_device_without_a_driver_tells_the_drivers_reason():
    with pytest.raises(UserError, match="there are: no driver here"):
        assign([view(0, None, (), gpu_reason="no driver here")], ["0"])


def test_a_run_without_gpus_reads_none():
    roles = assign([view(0, None, gpus("a", 2))])
    assert reads(roles) == {} and roles.reason == NO_GPU


def test_what_cannot_be_read_is_a_reason_for_all():
    sliced = assign([view(0, "MIG-1", gpus("a", 1)), view(1, "GPU-a0", gpus("a", 1))])
    assert reads(sliced) == {} and "rank 0 runs on a MIG slice" in sliced.reason
    split = assign([view(0, "GPU-a0", gpus("a", 1, mig=True))])
    assert "MIG slice" in split.reason
    blind = assign([view(0, "GPU-a0", (), gpu_reason="no driver library")])
    assert blind.reason == "no driver library"
    apple = assign([view(0, None, (), reason="Apple's GPU has no counter")])
    assert apple.reason == "Apple's GPU has no counter"
