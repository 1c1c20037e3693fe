"""Scenes of test_xdit_patches.py that need xfuser in a process of their own."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist

from mlenergy.diffusion.distributed.cluster import Cluster, read_rank
from mlenergy.diffusion.engines.xdit import cpu, importing
from mlenergy.diffusion.engines.xdit.patches import registry


def in_and_out() -> None:
    """Everything that patches replace, before, with and after them."""
    importing.use_our_logging()
    cpu.adapt()
    before = attributes()
    registry.apply_patches()
    patched = attributes()
    registry.apply_patches()
    print("same" if attributes() == patched else "changed")  # twice is once
    print("changed" if all(patched[key] is not before[key] for key in before) else "same")
    registry.apply_patches(without=[fault.name for fault in registry.KNOWN_FAULTS])
    print("same" if attributes() == before else "changed")


def attributes() -> dict[tuple[int, str], Any]:
    """Owner and name -> what is there now."""
    patches = [patch for fault in registry.KNOWN_FAULTS for patch in fault.patches()]
    return {(id(one.owner), str(one.attribute)): one.current() for one in patches}


def groups() -> None:
    """Process groups that one call of a parallel VAE forms, with its fault and without."""
    from parity_case import Call, Case, Parallelism
    from parity_worker import batch_of, case_plan

    from mlenergy.diffusion.engines import load_engine

    dist.init_process_group("gloo")
    rank = read_rank()
    cluster = Cluster(rank, torch.device("cpu"), dist.new_group(backend="gloo"))
    call = Call(1)
    case = Case("", "tiny/flux", Parallelism(ulysses=2, parallel_vae=True), calls=(call,))
    engine = load_engine(case_plan(case, call), cluster)
    formed = []
    new_group = dist.new_group
    dist.new_group = lambda *args, **options: formed.append(args) or new_group(*args, **options)
    for without in ((), ("parallel-vae-groups",)):
        registry.apply_patches(without)
        formed.clear()
        engine.generate(batch_of(call))
        if rank.is_main:
            print(len(formed))
    dist.barrier()


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"in-and-out": in_and_out, "groups": groups}[sys.argv[1]]()
