"""Attention and its cache: FLUX's uneven text, SD3's cache and second attention, PipeFusion, kernels."""

from __future__ import annotations

from typing import Any

import torch

from mlenergy.diffusion.engines.xdit.patches.patch import ItemPatch, Patch


def flux_uneven_text() -> list[Patch]:
    """Hand a text that the ranks cannot share evenly to the attention as joint tensors.

    xfuser then keeps the whole text on every rank, yet its FLUX processor goes on as if each
    rank had a part of it, so that the text counts once a rank.
    """
    from xfuser.model_executor.models.transformers import transformer_flux

    return [Patch(transformer_flux, "USP", text_in_joint_tensors)]


def text_in_joint_tensors(original: Any) -> Any:
    """The attention with a whole text, which stands before the image, as joint tensors (FLUX.1, FLUX.2)."""

    def attention(query: Any, key: Any, value: Any, **options: Any) -> Any:
        from xfuser.core.distributed import get_runtime_state, get_sequence_parallel_world_size

        state = get_runtime_state()
        # Only pipelines of xfuser's own say how they share the text; in diffusers' ones it is in equal parts.
        in_parts = getattr(state, "split_text_embed_in_sp", True)
        whole_text = get_sequence_parallel_world_size() > 1 and not in_parts
        if options.get("joint_strategy") is not None or not whole_text:
            return original(query, key, value, **options)
        text = state.max_condition_sequence_length
        (joint_query, query), (joint_key, key), (joint_value, value) = (
            (tensor[:, :, :text], tensor[:, :, text:]) for tensor in (query, key, value)
        )
        joint = {"joint_query": joint_query, "joint_key": joint_key, "joint_value": joint_value}
        return original(query, key, value, **{**options, **joint, "joint_strategy": "front"})

    return attention


def sd3_cache_updated_twice() -> list[Patch]:
    """Keep the cache update of SD3's processor, drop the second one inside the attention.

    The second one gets keys with the text appended and fails on their length.
    """
    from xfuser.model_executor.layers import attention_processor

    return [Patch(attention_processor, "USP", _attention_without_second_update)]


def _attention_without_second_update(original: Any) -> Any:
    def attention(query: Any, key: Any, value: Any, **options: Any) -> Any:
        from xfuser.core.distributed import get_sequence_parallel_world_size

        if get_sequence_parallel_world_size() == 1:  # then the processors have updated it themselves
            options = {**options, "attn_layer": None}
        return original(query, key, value, **options)

    return attention


def sd35_dual_attention() -> list[Patch]:
    """Let xfuser's plain processor serve SD3.5's second attention, which has no text."""
    from xfuser.model_executor.layers.attention_processor import xFuserJointAttnProcessor2_0

    return [Patch(xFuserJointAttnProcessor2_0, "__call__", _joint_or_plain)]


def _joint_or_plain(original: Any) -> Any:
    def call(
        self: Any, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        from xfuser.core.distributed import get_sequence_parallel_world_size
        from xfuser.model_executor.layers.attention_processor import xFuserAttnProcessor2_0

        if encoder_hidden_states is not None or get_sequence_parallel_world_size() == 1:
            return original(self, attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        return xFuserAttnProcessor2_0()(attn, hidden_states)

    return call


def ulysses_pipefusion_cache() -> list[Patch]:
    """Store the keys of a whole image patch by patch, as later patches look for them."""
    from xfuser.core.cache_manager.cache_manager import CacheManager

    return [Patch(CacheManager, "_sequence_parallel_cache_update", _patch_major_update)]


def _patch_major_update(original: Any) -> Any:
    def update(self: Any, new_kv: Any, layer: Any, slice_dim: int = 1, layer_type: str = "attn") -> Any:
        from xfuser.core.distributed import get_runtime_state, get_ulysses_parallel_world_size

        state = get_runtime_state()
        if state.num_pipeline_patch == 1 or state.patch_mode:
            return original(self, new_kv, layer, slice_dim, layer_type)
        by_rank = [
            part.split(state.pp_patches_token_num, dim=slice_dim)
            for part in torch.chunk(new_kv, get_ulysses_parallel_world_size(), dim=slice_dim)
        ]
        by_patch = [part for parts in zip(*by_rank, strict=True) for part in parts]
        cache = torch.cat(by_patch, dim=slice_dim)
        self.cache[layer_type, layer].tensors[0] = cache
        return cache

    return update


def cudnn_takes_contiguous_tensors() -> list[Patch]:
    """Hand cuDNN's kernel contiguous tensors, as diffusers does for its ring.

    xfuser calls the operator itself, with transposed views where no exchange between ranks has copied them;
    diffusers 0.42.1 notes that results are then incorrect (models/attention_dispatch.py:
    _cudnn_attention_forward_op). What is contiguous already is not copied.
    """
    return [_registered("CUDNN", _on_contiguous)]


def efficient_attention_without_padding() -> list[Patch]:
    """Cut the log-sum-exp of torch's memory-efficient kernel to the queries that there are.

    The kernel rounds its length up to a multiple of 32, and the ring then merges tensors of two lengths.
    """
    return [_registered("SDPA_EFFICIENT", _cut_log_sum_exp)]


def _registered(backend: str, replacement: Any) -> Patch:
    """A patch of one entry of xfuser's table of attention functions."""
    from xfuser.core.distributed.attention_backend import ATTENTION_FUNCTION_REGISTRY, AttentionBackendType

    return ItemPatch(ATTENTION_FUNCTION_REGISTRY, AttentionBackendType[backend], replacement)


def _on_contiguous(original: Any) -> Any:
    def attention(query: Any, key: Any, value: Any, *args: Any, **options: Any) -> Any:
        return original(query.contiguous(), key.contiguous(), value.contiguous(), *args, **options)

    return attention


def _cut_log_sum_exp(original: Any) -> Any:
    def attention(query: Any, key: Any, value: Any, *args: Any, **options: Any) -> Any:
        output, log_sum_exp = original(query, key, value, *args, **options)
        return output, log_sum_exp[..., : query.shape[-2]]

    return attention


def latte_temporal_attention() -> list[Patch]:
    """Leave Latte's attention over time to diffusers: a rank holds every frame of its own patches.

    xfuser shares it like the attention over a frame, so that patches attend to those of other ranks.
    """
    from xfuser.model_executor.models.transformers.latte_transformer_3d import xFuserLatteTransformer3DWrapper

    return [Patch(xFuserLatteTransformer3DWrapper, "__init__", _time_stays_whole)]


def _time_stays_whole(original: Any) -> Any:
    def init(self: Any, transformer: Any) -> None:
        blocks = transformer.temporal_transformer_blocks
        own = [block.attn1 for block in blocks]
        original(self, transformer)
        for block, attention in zip(blocks, own, strict=True):
            block.attn1 = attention

    return init
