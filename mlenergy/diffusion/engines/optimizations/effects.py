"""Optimizations that changed nothing, by what the engine observed; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlenergy.diffusion.config.optimizations import AttentionName, Optimizations

Effects = Mapping[str, Any]  # one rank's record, as an engine's `effects` gives it

# Asked-for attention -> a word of the operator that shows it. "sdpa" leaves the choice to torch.
_KERNEL_WORDS: dict[AttentionName, tuple[str, ...]] = {
    "math": ("softmax",),
    "flash": ("flash_attention",),
    "efficient": ("efficient_attention",),
    "cudnn": ("cudnn_attention",),
    "fa2": ("flash_attn",),
    "fa3": ("flash_attn_3", "fa3", "flash_attn"),
    "sage": ("sage",),
}


def has_checked_effect(optimizations: Optimizations) -> bool:
    """True where `optimizations_without_effect` can judge at least one of these."""
    asked = (optimizations.cache, optimizations.compile_mode, optimizations.quantization)
    stored = (optimizations.layerwise_fp8, optimizations.fp8_t5_encoder, optimizations.vae_tiling)
    return any((*asked, *stored)) or optimizations.attention in _KERNEL_WORDS


def optimizations_without_effect(optimizations: Optimizations, ranks: Sequence[Effects]) -> list[str]:
    """One line for every optimization that changed nothing on any rank; what cannot be seen is not blamed."""
    checks = (_cache, _compile, _attention, _weights, _tiling)
    return [line for line in (check(optimizations, ranks) for check in checks) if line]


def _cache(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    if optimizations.cache is None:
        return None
    shares = [rank["cache"]["computed_share"] for rank in ranks]
    if any(share is not None and share < 1 for share in shares):
        return None
    if optimizations.cache_threshold is None:
        return f"cache {optimizations.cache} skipped nothing; use more steps, or leave it out"
    return (
        f"cache {optimizations.cache} skipped no step at threshold {optimizations.cache_threshold:g}; "
        "raise --cache_threshold, use more steps, or leave it out"
    )


def _compile(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    if optimizations.compile_mode is None or any(rank["compile"]["graphs"] for rank in ranks):
        return None
    return "--use_torch_compile compiled no graph; leave it out"


def _attention(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    words = _KERNEL_WORDS.get(optimizations.attention)
    seen = [rank["attention"]["kernels"] for rank in ranks]
    if words is None or any(kernels is None for kernels in seen):
        return None
    names = {name for kernels in seen for name in kernels}
    if any(word in name for word in words for name in names):
        return None
    ran = ", ".join(sorted(names)) or "none that torch's dispatcher sees"
    return f"--attention_backend {optimizations.attention} was not used: what ran is {ran}; choose another"


def _weights(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    same = {
        component
        for rank in ranks
        for component, record in rank.get("weights", {}).items()
        if record["bytes"] >= record["bytes_before"]
    }
    if not same:
        return None
    return f"the weights of {', '.join(sorted(same))} did not become smaller; leave their 8-bit option out"


def _tiling(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    calls = [rank["vae"]["decoder_calls"] for rank in ranks if "vae" in rank]
    if not optimizations.vae_tiling or not any(calls) or any(count > 1 for count in calls):
        return None
    return "--vae_tiling decoded each image in one tile: it is not larger than a tile; leave it out"
