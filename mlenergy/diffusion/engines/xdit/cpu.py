"""All that xfuser 0.7.0 needs to run on a CPU over gloo, with the reason for each line.

xfuser is written for accelerators: on a CPU it refuses to import, to split a sequence and to
form its groups. Nothing here changes what is computed, and nothing here runs on CUDA. It is
for tests, for the demo and for trying a set-up out before GPUs are paid for.
"""

from __future__ import annotations

from typing import Any

import torch

from mlenergy.diffusion.engines.xdit import gloo
from mlenergy.diffusion.engines.xdit.importing import import_xfuser, installed_version, leaf_module

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
    gloo.adapt()
    _state["adapted"] = True


def _adapt_environment(envs: Any) -> None:
    """What xfuser asks of the machine, before any of its modules reads the answers."""
    # A CUDA build of torch on a machine without a GPU would be taken for a GPU.
    envs._is_cuda = _false
    envs._is_hip = _false
    # A Mac's own device: xfuser would put buffers there while this run is on its CPU.
    envs._is_mps = _false
    # Read at import by xfuser.config for a check of CUDA graphs; raises where there is no GPU.
    envs.get_device_version = _no_device_version
    # False without a GPU, though yunchang's process groups are plain torch. Many modules copy it
    # at import, so it has to be true before them; otherwise sequence parallelism is refused.
    envs.PACKAGES_CHECKER.packages_info["has_long_ctx_attn"] = True


def _adapt_groups() -> None:
    """Process groups and waiting."""
    from xfuser.core.distributed import group_coordinator
    from xfuser.model_executor.layers import usp
    from yunchang.globals import PROCESS_GROUP

    # None at import where CUDA is missing; the all-to-all and the ring look their group up here.
    usp.PROCESS_GROUP = PROCESS_GROUP
    # torch.cuda.synchronize: raises without CUDA. A CPU has nothing to wait for.
    group_coordinator.synchronize = _nothing


def _adapt_attention() -> None:
    """An attention with log-sum-exp, which ring needs to merge the ranks' parts."""
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
    output, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=mask
    )
    return output, log_sum_exp


def _false() -> bool:
    return False


def _no_device_version() -> None:
    return None


def _nothing(*_: Any) -> None:
    return None
