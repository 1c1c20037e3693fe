"""Ranks without processes: places read from the environment, devices, and what ranks exchange, on doubles."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from mlenergy.diffusion.distributed import cluster as module
from mlenergy.diffusion.distributed.cluster import Cluster, Rank, read_rank
from mlenergy.diffusion.distributed.store import Store
from mlenergy.diffusion.errors import UserError

CPU = torch.device("cpu")
TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}


def test_each_number_is_its_own_variable():
    rank = read_rank(TORCHRUN)
    assert (rank.rank, rank.local_rank, rank.world_size, rank.local_world_size) == (5, 1, 8, 4)
    assert rank.launched and not rank.is_main
    without = {name: value for name, value in TORCHRUN.items() if name != "LOCAL_WORLD_SIZE"}
    assert read_rank(without).local_world_size == 8
    with pytest.raises(UserError, match="WORLD_SIZE is not set"):
        read_rank({"RANK": "0", "LOCAL_RANK": "0"})


@pytest.mark.parametrize(("local_rank", "fits"), [(0, True), (1, True), (2, False)])
def test_each_process_of_a_node_has_a_gpu_of_its_own(monkeypatch, local_rank, fits):
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: taken.append(device.index))
    ones, kernels = torch.ones, []
    monkeypatch.setattr(torch, "ones", lambda count, device: (kernels.append(device.index), ones(count))[1])
    rank = Rank(local_rank, local_rank, 3, 3, "here")
    if not fits:
        with pytest.raises(
            UserError, match=r"started 3 processes on here but 2 GPUs are .*--nproc_per_node=2"
        ):
            module._take_device(rank, "cuda")
        return
    assert module._take_device(rank, "cuda") == torch.device("cuda", local_rank)
    assert taken == kernels == [local_rank]


def of_two(device=CPU, rank=0):
    """Rank of two, with a control group that is never asked."""
    return Cluster(Rank(rank, rank, 2, 2), device, object())


@pytest.mark.parametrize(("kind", "options"), [("cpu", {}), ("cuda", {"device_ids": [1]})])
def test_ranks_wait_for_each_other_on_their_own_device(monkeypatch, kind, options):
    waited = []
    monkeypatch.setattr(dist, "barrier", lambda **words: waited.append(words))
    of_two(torch.device(kind, 1) if kind == "cuda" else CPU).barrier()
    assert waited == [options]
    Cluster(Rank(), CPU, None).barrier()
    assert len(waited) == 1, "alone there is nobody to wait for"


def test_what_is_sent_comes_from_rank_0_and_is_gathered_in_rank_order(monkeypatch):
    def broadcast(box, src, group):
        assert src == 0
        box[0] = "rank 0's"

    def gather(value, box, dst, group):
        assert dst == 0
        if box is not None:
            box[:] = [value, "rank 1's"]

    monkeypatch.setattr(dist, "broadcast_object_list", broadcast)
    monkeypatch.setattr(dist, "gather_object", gather)
    monkeypatch.setattr(
        dist, "all_gather_object", lambda box, value, group: box.__setitem__(slice(None), [value, 2])
    )
    assert of_two(rank=1).broadcast_object("own") == "rank 0's"
    assert of_two().gather_object("own") == ["own", "rank 1's"]
    assert of_two(rank=1).gather_object("own") is None
    assert of_two().all_gather_object("own") == ["own", 2]


@pytest.mark.parametrize(
    ("own", "gathered", "line"),
    [
        (None, [None, None], None),
        ("mine", ["mine", None], "mine"),
        (None, [None, "of rank 1"], "of rank 1"),
        ("of rank 1", ["of rank 0", "of rank 1"], "of rank 0"),
    ],
)
def test_the_first_ranks_mistake_is_every_ranks(monkeypatch, own, gathered, line):
    one = of_two()
    monkeypatch.setattr(one, "all_gather_object", lambda value: gathered if value == own else "another")

    def step():
        with one.raise_on_all_ranks():
            if own is not None:
                raise UserError(own)

    if line is None:
        step()
    else:
        with pytest.raises(UserError, match=f"^{line}$"):
            step()


def test_alone_a_cluster_gives_back_what_it_gets():
    one = Cluster(Rank(), CPU, None)
    assert one.broadcast_object(7) == 7
    assert one.gather_object(7) == one.all_gather_object(7) == [7]


def test_the_first_value_under_a_key_stands():
    store = Store(Rank())
    assert store.read("failed") is None
    assert store.set_once("failed", {"rank": 1}) is True
    assert store.set_once("failed", {"rank": 2}) is False
    assert store.read("failed") == {"rank": 1}


class Shared:
    """torchrun's store, in memory."""

    def __init__(self) -> None:
        self.values: dict = {}

    def add(self, key, by):
        self.values[key] = self.values.get(key, 0) + by
        return self.values[key]

    def set(self, key, text):
        self.values[key] = text

    def get(self, key):
        return self.values[key]

    def check(self, keys):
        return all(key in self.values for key in keys)


def test_of_several_ranks_one_value_stands_and_all_read_it(monkeypatch):
    shared = Shared()
    stores = [Store(Rank()) for _ in range(2)]
    for store in stores:
        store._store = shared
    assert [store.set_once("failed", {"rank": i}) for i, store in enumerate(stores)] == [True, False]
    assert [store.read("failed") for store in stores] == [{"rank": 0}] * 2
    assert stores[0].read("else") is None


def test_a_store_that_ended_keeps_nobody_from_speaking():
    def lost(*_words):
        raise RuntimeError("connection reset")

    store = Store(Rank())
    store._store = SimpleNamespace(add=lost, check=lost)
    assert store.set_once("failed", 1) is True and store.read("failed") is None
