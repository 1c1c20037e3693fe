"""All that xfuser 0.7.0 needs to run on a CPU over gloo, with the reason for each line.

xfuser is written for accelerators: on a CPU it refuses to import, to split a sequence and to
form its groups. Nothing here changes what is computed, and nothing here runs on CUDA. It is
for tests, for the demo and for trying a set-up out before GPUs are paid for.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from mlenergy.diffusion.engines.xdit.importing import import_xfuser, installed_version, leaf_module

_MOST_KEPT_SENDS = 64  # finished sends are dropped once this many are kept
_state = {"adapted": False}


def adapt() -> None:
    """Make xfuser usable on a CPU; call it before xfuser is imported, as often as you like.

    Raises:
        UserError: another version of xfuser than the one this was written for.
    """
    installed_version()
    if _state["adapted"]:
        return
    _adapt_environment(leaf_module("envs"))
    import_xfuser()
    _adapt_groups()
    _adapt_attention()
    _adapt_pipeline_messages()
    _state["adapted"] = True


def _adapt_environment(envs: Any) -> None:
    """Answer for the machine, before any of xfuser's modules asks."""
    # A CUDA build of torch on a machine without a GPU would be taken for a GPU.
    envs._is_cuda = lambda: False
    envs._is_hip = lambda: False
    # A Mac's own device: xfuser would put buffers there while this run is on its CPU.
    envs._is_mps = lambda: False
    # Read at import by xfuser.config for a check of CUDA graphs; raises where there is no GPU.
    envs.get_device_version = lambda: None
    # False without a GPU, though yunchang's process groups are plain torch. Many modules copy it
    # at import, so it has to be true before them; otherwise sequence parallelism is refused.
    envs.PACKAGES_CHECKER.packages_info["has_long_ctx_attn"] = True


def _adapt_groups() -> None:
    """Let process groups be formed and waited for without CUDA."""
    from xfuser.core.distributed import group_coordinator
    from xfuser.model_executor.layers import usp
    from yunchang.globals import PROCESS_GROUP

    # None at import where CUDA is missing; the all-to-all and the ring look their group up here.
    usp.PROCESS_GROUP = PROCESS_GROUP
    # torch.cuda.synchronize: raises without CUDA. A CPU has nothing to wait for.
    group_coordinator.synchronize = lambda *_: None


def _adapt_attention() -> None:
    """Give ring attention a kernel with log-sum-exp, by which it merges the ranks' parts."""
    from xfuser.core.distributed.attention_backend import ATTENTION_FUNCTION_REGISTRY, AttentionBackendType

    # xfuser's own calls the CUDA kernel of the same operator family.
    ATTENTION_FUNCTION_REGISTRY[AttentionBackendType.SDPA_FLASH] = _flash_attention_for_cpu


def _flash_attention_for_cpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    attention_kwargs: dict[str, Any] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over (batch, heads, tokens, width); its output and log-sum-exp (batch, heads, tokens)."""
    mask = attention_kwargs.get("attn_mask") if attention_kwargs else None
    if mask is not None and mask.dtype is torch.bool:  # this operator takes only masks that it adds
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
    output, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=mask
    )
    return output, log_sum_exp


def _adapt_pipeline_messages() -> None:
    """Replace the three methods of xfuser's pipeline group that send.

    xfuser's stages send to each other while each still waits for its own message. NCCL buffers
    small sends, so that works; a gloo send ends only when the receiver has asked for it, and the
    stages would wait for each other for ever. Here a send is started, kept, and not waited for.
    """
    from xfuser.core.distributed.group_coordinator import PipelineGroupCoordinator

    PipelineGroupCoordinator._communicate_shapes = _communicate_shapes
    PipelineGroupCoordinator._pipeline_isend = _pipeline_isend
    PipelineGroupCoordinator._pipeline_isend_skip = _pipeline_isend_skip


def _kept_send(group: Any, tensor: torch.Tensor, destination: int, process_group: Any) -> dist.Work | None:
    """Start a send and hold its work: gloo reads the tensor's memory until the receiver has it."""
    work = dist.isend(tensor, dst=destination, group=process_group)
    kept = group.__dict__.setdefault("_kept_sends", [])
    if len(kept) >= _MOST_KEPT_SENDS:
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
