"""Newer transformers of xfuser: FLUX.2's and Qwen-Image's uneven text, Z-Image's arguments."""

from __future__ import annotations

from typing import Any

from mlenergy.diffusion.engines.xdit.patches.attention import text_in_joint_tensors
from mlenergy.diffusion.engines.xdit.patches.patch import Patch


def flux2_uneven_text() -> list[Patch]:
    """Hand a text that the ranks cannot share evenly to the attention as joint tensors, as for FLUX.1."""
    from xfuser.model_executor.models.transformers import transformer_flux2

    return [Patch(transformer_flux2, "USP", text_in_joint_tensors)]


def flux2_cache_updated_twice() -> list[Patch]:
    """Keep the cache update of FLUX.2's processors, drop the second one inside the attention.

    The second one gets keys with the text before the image's and fails on their length, as SD3's does.
    """
    from xfuser.model_executor.layers import usp

    return [Patch(usp, "_has_kv_cache", _but_flux2_alone)]


def _but_flux2_alone(original: Any) -> Any:
    def has_cache(layer: Any) -> bool:
        from xfuser.core.distributed import get_sequence_parallel_world_size
        from xfuser.model_executor.models.transformers import transformer_flux2 as flux2

        own = (flux2.xFuserFlux2AttentionWrapper, flux2.xFuserFlux2ParallelSelfAttention)
        if isinstance(layer, own) and get_sequence_parallel_world_size() == 1:
            return False  # the processors have updated it themselves
        return bool(original(layer))

    return has_cache


def qwen_uneven_text() -> list[Patch]:
    """Keep a text that the ranks cannot share evenly whole on each of them, and out of the shared sequence.

    xfuser pads it with zeros up to a multiple of the ranks, and its attention takes no mask.
    """
    from xfuser.model_executor.models.transformers import transformer_qwen

    return [
        Patch(transformer_qwen.xFuserQwenImageTransformerWrapper, "forward", _note_whole_text),
        Patch(transformer_qwen, "chunk_and_pad_sequence", _whole_where_uneven),
        Patch(transformer_qwen, "USP", _qwen_attention),
    ]


_whole_text = {"tokens": 0}  # of the call that runs; 0: every rank has an equal part


def _note_whole_text(original: Any) -> Any:
    def forward(self: Any, hidden_states: Any, encoder_hidden_states: Any = None, **options: Any) -> Any:
        from xfuser.core.distributed import get_sequence_parallel_world_size

        if options.get("encoder_hidden_states_mask") is not None:
            raise ValueError(
                "xfuser's Qwen-Image takes no text mask; the plan should have refused this batch"
            )
        tokens = encoder_hidden_states.shape[1]
        _whole_text["tokens"] = tokens if tokens % get_sequence_parallel_world_size() else 0
        return original(self, hidden_states, encoder_hidden_states, **options)

    return forward


def _whole_where_uneven(original: Any) -> Any:
    def chunk(x: Any, rank: int, world_size: int, pad_amount: int, dim: int) -> Any:
        # Only texts are uneven: the plan refuses images whose rows the ranks do not divide.
        return x if pad_amount else original(x, rank, world_size, pad_amount, dim)

    return chunk


def _qwen_attention(original: Any) -> Any:
    def attention(query: Any, key: Any, value: Any, **options: Any) -> Any:
        text = _whole_text["tokens"]
        if not text:
            return original(query, key, value, **options)
        (joint_query, query), (joint_key, key), (joint_value, value) = (
            (tensor[:, :, :text], tensor[:, :, text:]) for tensor in (query, key, value)
        )
        joint = {"joint_query": joint_query, "joint_key": joint_key, "joint_value": joint_value}
        return original(query, key, value, **{**options, **joint, "joint_strategy": "front"})

    return attention


def z_image_arguments() -> list[Patch]:
    """Take the argument that diffusers 0.42.1's pipeline passes beside the others, as long as it is empty."""
    from xfuser.model_executor.models.transformers.transformer_z_image import xFuserZImageTransformer2DWrapper

    return [Patch(xFuserZImageTransformer2DWrapper, "forward", _without_joint_attention)]


def _without_joint_attention(original: Any) -> Any:
    def forward(self: Any, *args: Any, joint_attention_kwargs: Any = None, **options: Any) -> Any:
        if joint_attention_kwargs:
            raise TypeError("xfuser's Z-Image takes no joint_attention_kwargs")
        return original(self, *args, **options)

    return forward
