"""Ranks and what they exchange: knows nothing of diffusion."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

# Long enough for a rank that downloads or loads a large model while the others wait for it.
COLLECTIVE_TIMEOUT = timedelta(minutes=60)


@dataclass(frozen=True)
class Rank:
    """This process among the ranks, from torchrun's variables; alone without torchrun."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    hostname: str = "localhost"
    launched: bool = False  # by torchrun, or anything else that sets RANK and WORLD_SIZE

    @property
    def is_main(self) -> bool:
        """True on global rank 0, which prints and writes."""
        return self.rank == 0


def read_rank(environ: Mapping[str, str] = os.environ) -> Rank:
    """This process's place from torchrun's environment variables.

    Raises:
        UserError: only some of the variables are set, or one is not a number.
    """
    hostname = socket.gethostname()
    if "RANK" not in environ and "WORLD_SIZE" not in environ:
        return Rank(hostname=hostname)
    try:
        return Rank(
            rank=int(environ["RANK"]),
            local_rank=int(environ["LOCAL_RANK"]),
            world_size=int(environ["WORLD_SIZE"]),
            local_world_size=int(environ.get("LOCAL_WORLD_SIZE", environ["WORLD_SIZE"])),
            hostname=hostname,
            launched=True,
        )
    except KeyError as missing:
        raise UserError(
            f"{missing.args[0]} is not set though other torchrun variables are; start with torchrun, "
            "or unset RANK and WORLD_SIZE for one process"
        ) from None
    except ValueError as wrong:
        raise UserError(f"a torchrun variable is not a number ({wrong}); start with torchrun") from None


class Cluster:
    """This run's process group: a barrier on the device's backend, objects over gloo."""

    def __init__(self, rank: Rank, device: torch.device, control: dist.ProcessGroup | None) -> None:
        self.rank = rank
        self.device = device
        self._control = control  # None: one process

    @classmethod
    def start(cls, rank: Rank, device_type: str) -> Cluster:
        """Join the process group and take this rank's device.

        Raises:
            UserError: more processes on this node than GPUs.
        """
        import torch.distributed as dist

        device = _take_device(rank, device_type)
        backend = "nccl" if device.type == "cuda" else "gloo"
        if rank.launched:
            dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
        else:
            # xfuser forms groups for one process too; a store in memory needs no port.
            store = dist.HashStore()  # type: ignore[attr-defined]  # real, but missing in torch's stubs
            dist.init_process_group(backend, store=store, rank=0, world_size=1)
        control = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT) if rank.world_size > 1 else None
        return cls(rank, device, control)

    def barrier(self) -> None:
        """Wait for all ranks, on the device's own backend."""
        if self._control is None:
            return
        import torch.distributed as dist

        if self.device.type == "cuda":
            dist.barrier(device_ids=[self.device.index])
        else:
            dist.barrier()

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self._control is None:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def gather_object(self, value: Any) -> list[Any] | None:
        """Every rank's value in rank order on rank 0, None elsewhere."""
        if self._control is None:
            return [value]
        import torch.distributed as dist

        box: list[Any] | None = [None] * self.rank.world_size if self.rank.is_main else None
        dist.gather_object(value, box, dst=0, group=self._control)
        return box

    def all_gather_object(self, value: Any) -> list[Any]:
        """Every rank's value in rank order, on every rank."""
        if self._control is None:
            return [value]
        import torch.distributed as dist

        box: list[Any] = [None] * self.rank.world_size
        dist.all_gather_object(box, value, group=self._control)
        return box

    @contextmanager
    def raise_on_all_ranks(self) -> Iterator[None]:
        """A step that fails on every rank when it fails on one, so that none waits for a dead peer.

        Raises:
            UserError: the first rank's line, on all ranks.
        """
        error: str | None = None
        try:
            yield
        except UserError as own:
            error = str(own)
        first = next((line for line in self.all_gather_object(error) if line), None)
        if first is not None:
            raise UserError(first)

    def close(self) -> None:
        """Leave the process group."""
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def _take_device(rank: Rank, device_type: str) -> torch.device:
    import torch

    if device_type != "cuda":
        return torch.device(device_type)
    visible = torch.cuda.device_count()
    if rank.local_rank >= visible:
        raise UserError(
            f"torchrun started {rank.local_world_size} processes on {rank.hostname} but {visible} GPUs are "
            f"visible there; use --nproc_per_node={max(visible, 1)} or set CUDA_VISIBLE_DEVICES"
        )
    device = torch.device("cuda", rank.local_rank)
    try:
        torch.cuda.set_device(device)
        # The first kernel: a driver too old, or a GPU that this torch has no kernels for, ends the run here.
        torch.ones(1, device=device).add(1).item()
    except torch.OutOfMemoryError:
        raise  # another program fills the GPU; what explains failed allocations says so
    except RuntimeError as error:
        where = f"GPU {device.index} of {rank.hostname}"
        raise UserError(f"torch {torch.__version__} cannot use {where}: {_explained(error)}") from error
    return device


def _explained(error: BaseException) -> str:
    """The first line, without the advice of PyTorch's authors on debugging kernels, and what to do."""
    text = str(error).split("\n")[0].strip().rstrip(".")
    if "driver" in text or "no kernel image" in text:
        return (
            f"{text}; update the driver, or install the torch build that fits the driver and the GPU "
            "(docs/clusters.md, The GPU driver); mlenergy doctor compares them"
        )
    return f"{text}; nvidia-smi and mlenergy doctor show its state"


def first_to_fail(rank: Rank) -> bool:
    """True on the one process that tells the user: the first that asks, or rank 0 before there is a group."""
    distributed = sys.modules.get("torch.distributed")
    if not rank.launched or distributed is None or not distributed.is_initialized():
        return rank.is_main
    try:
        store = distributed.distributed_c10d._get_default_store()
        return bool(store.add("mlenergy/failed", 1) == 1)
    except RuntimeError:  # the store ended with its host: no other rank can be asked, so print
        return True
