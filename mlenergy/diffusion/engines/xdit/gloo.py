"""PipeFusion's messages over gloo.

xfuser's stages send to each other while each still waits for its own message. NCCL buffers
small sends, so that works; a gloo send ends only when the receiver has asked for it, and the
stages would wait for each other for ever. Here a send is started, kept, and not waited for.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

_MOST_KEPT = 64  # finished sends are dropped once this many are kept


def adapt() -> None:
    """Replace the three methods of xfuser's pipeline group that send."""
    from xfuser.core.distributed.group_coordinator import PipelineGroupCoordinator

    PipelineGroupCoordinator._communicate_shapes = _communicate_shapes
    PipelineGroupCoordinator._pipeline_isend = _pipeline_isend
    PipelineGroupCoordinator._pipeline_isend_skip = _pipeline_isend_skip


def _kept_send(group: Any, tensor: torch.Tensor, destination: int, process_group: Any) -> dist.Work | None:
    """Start a send and hold its work: gloo reads the tensor's memory until the receiver has it."""
    work = dist.isend(tensor, dst=destination, group=process_group)
    kept = group.__dict__.setdefault("_kept_sends", [])
    if len(kept) >= _MOST_KEPT:
        kept[:] = [entry for entry in kept if not entry[0].is_completed()]
    if work is not None:  # None: this rank is not of that group
        kept.append((work, tensor))
    return work


def _communicate_shapes(
    self: Any, tensor_send_to_next: torch.Tensor | None = None, recv_prev: bool = False
) -> torch.Size:
    """Tell the next stage a tensor's shape, learn the previous one's; the send is not waited for."""
    if tensor_send_to_next is not None:
        shape = torch.tensor(tensor_send_to_next.shape, dtype=torch.int64)
        _kept_send(self, torch.tensor([len(shape)], dtype=torch.int64), self.next_rank, self.device_group)
        _kept_send(self, shape, self.next_rank, self.device_group)
    if not recv_prev:
        return torch.Size([0, 0, 0])
    dimensions = torch.empty(1, dtype=torch.int64)
    dist.recv(dimensions, src=self.prev_rank, group=self.device_group)
    shape = torch.empty(int(dimensions), dtype=torch.int64)
    dist.recv(shape, src=self.prev_rank, group=self.device_group)
    return torch.Size(shape.tolist())


def _pipeline_isend(self: Any, tensor: torch.Tensor) -> dist.Work | None:
    group = self.device_groups[self.rank_in_group % 2] if self.world_size == 2 else self.device_group
    return _kept_send(self, tensor, self.next_rank, group)


def _pipeline_isend_skip(self: Any, tensor: torch.Tensor) -> dist.Work | None:
    return _kept_send(self, tensor, self.skip_rank, self.skip_device_group)
