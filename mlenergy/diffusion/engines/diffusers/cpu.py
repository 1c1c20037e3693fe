"""Adapters that diffusers' parallelism needs on a CPU; on CUDA nothing here is called.

Seen with diffusers 0.42.1 and torch 2.13.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks import tensor_parallel
from diffusers.models import attention_dispatch

_plain_forward = attention_dispatch._native_attention_forward_op


@contextmanager
def countable_device() -> Iterator[None]:
    """`enable_parallelism` takes the rank modulo the number of accelerators, which is 0 here.

    The device it computes so is recorded and not used: the mesh is given to it.
    """
    counted = torch.accelerator.device_count
    torch.accelerator.device_count = lambda: 1
    try:
        yield
    finally:
        torch.accelerator.device_count = counted


def allow_tensor_parallel() -> None:
    """Diffusers lists the devices it has tried; torch's DTensor, which does the work, runs on gloo too."""
    if "cpu" not in tensor_parallel._SUPPORTED_TP_DEVICES:
        tensor_parallel._SUPPORTED_TP_DEVICES = (*tensor_parallel._SUPPORTED_TP_DEVICES, "cpu")


def give_log_sum_exp() -> None:
    """Let the "native" attention return the log-sum-exp that ring attention merges its parts by.

    `scaled_dot_product_attention` keeps it to itself; the CPU kernel beneath it returns it.
    """
    attention_dispatch._native_attention_forward_op = _forward


def _forward(
    ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
) -> Any:
    """Same arguments as the function it replaces; tensors are (batch, tokens, heads, width)."""
    attn_mask, dropout_p, is_causal, scale, _, return_lse = (*args, *(None,) * 6)[:6]
    if not return_lse:
        return _plain_forward(ctx, query, key, value, *args, **kwargs)
    heads_first = (x.transpose(1, 2) for x in (query, key, value))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *heads_first, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )
    return out.transpose(1, 2), lse.transpose(1, 2)
