"""Optimizations that changed nothing, by what the engine observed; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlenergy.diffusion.config.attention import ATTENTION
from mlenergy.diffusion.config.optimizations import CUDA_GRAPH_MODES, Optimizations, SchedulerName

Effects = Mapping[str, Any]  # one rank's record, as an engine's `effects` gives it

# Asked-for scheduler -> a part of the names of its classes.
_SCHEDULER_WORDS: dict[SchedulerName, str] = {
    "ddim": "DDIM",
    "dpmsolver++": "DPMSolver",
    "unipc": "UniPC",
    "euler": "Euler",
}
# Settings of libraries are as they were set, and say nothing of what they changed.
_NOT_JUDGED = {
    *("attention", "offload", "cudnn_benchmark", "tf32", "compile_cache", "compile_static_shapes"),
    *("compile_fullgraph", "inductor_coordinate_descent", "inductor_conv_1x1_as_mm"),
    *("inductor_epilogue_fusion",),
}


def has_checked_effect(optimizations: Optimizations) -> bool:
    """True where `optimizations_without_effect` can judge at least one of these."""
    # Offloading cannot be judged: where little memory is needed, all of it may lie on the GPU rightly.
    judged = set(optimizations.in_use) - _NOT_JUDGED
    return bool(judged) or bool(_operators(optimizations))


def optimizations_without_effect(optimizations: Optimizations, ranks: Sequence[Effects]) -> list[str]:
    """One line for every optimization that changed nothing on any rank; what cannot be seen is not blamed."""
    checks = (
        *(
            _cache,
            _compile,
            _given_up,
            _compiled_vae,
            _compiled_encoders,
            _cuda_graphs_of_compiler,
            _fused_qkv,
        ),
        *(_vae_channels_last, _unet_channels_last, _attention, _attention_slicing),
        *(_weights, _vae_slicing, _tiling, _vae_dtype, _scheduler, _cuda_graphs),
    )
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
    if optimizations.compile_mode is None:
        return None
    # Graphs are counted for the whole process, those of the other parts by themselves.
    own = [
        rank["compile"]["graphs"] - sum(rank["compile"].get("graphs_of_others", {}).values())
        for rank in ranks
    ]
    return None if any(count > 0 for count in own) else "--use_torch_compile compiled no graph; leave it out"


def _given_up(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    if not optimizations.compiled_parts:
        return None
    most = max(rank["compile"].get("given_up", 0) for rank in ranks)
    if not most:
        return None
    return (
        f"{optimizations.compiled_parts[0]}: torch compiled {most} functions so often that it gave up and "
        "ran them as they are; leave --compile_static_shapes out, or use prompts of one length"
    )


def _graphs_of_others(ranks: Sequence[Effects], of_vae: bool) -> int:
    return sum(
        graphs
        for rank in ranks
        for name, graphs in rank["compile"]["graphs_of_others"].items()
        if (name == "vae") == of_vae
    )


def _compiled_vae(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    if not optimizations.compile_vae or _graphs_of_others(ranks, of_vae=True):
        return None
    return "--compile_vae compiled no graph; leave it out"


def _compiled_encoders(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    if not optimizations.compile_text_encoders or _graphs_of_others(ranks, of_vae=False):
        return None
    return "--compile_text_encoders compiled no graph; leave it out"


def _cuda_graphs_of_compiler(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    mode = optimizations.inductor_mode
    if mode not in CUDA_GRAPH_MODES:
        return None
    skipped = sum(rank["compile"]["cuda_graph_skips"] for rank in ranks)
    if not skipped:
        return None
    return (
        f"--inductor_mode {mode}: torch recorded no CUDA graph for {skipped} of the compiled graphs; use "
        f"{CUDA_GRAPH_MODES[mode]}"
    )


def _fused_qkv(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    if not optimizations.fuse_qkv:
        return None
    fused = [rank["fused_qkv"] for rank in ranks]
    if all(one["linear_layers"] < one["linear_layers_before"] for one in fused):
        return None
    return "--fuse_qkv fused no layer; leave it out"


def _vae_channels_last(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    return _channels_last("vae", ranks) if optimizations.vae_channels_last else None


def _unet_channels_last(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    return _channels_last("unet", ranks) if optimizations.unet_channels_last else None


def _channels_last(part: str, ranks: Sequence[Effects]) -> str | None:
    """More than half of a part's convolutions on every rank that ran them; what did not run is not blamed."""
    seen = [rank["channels_last"][part] for rank in ranks if "channels_last" in rank]
    few = [one for one in seen if one["channels_last"] * 2 <= one["convolutions"] > 0]
    if not few:
        return None
    one = few[0]
    return (
        f"--{part}_channels_last: {one['channels_last']} of {one['convolutions']} convolutions gave channels "
        "last; leave it out"
    )


def _operators(optimizations: Optimizations) -> tuple[str, ...]:
    """Words of the operators that show the asked-for attention; none where the choice is left to others."""
    return () if optimizations.attention == "auto" else ATTENTION[optimizations.attention].operators


def _attention(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    """A kernel has to be seen on every rank, in each of the layers that one can be chosen for."""
    words = _operators(optimizations)
    seen = [rank["attention"] for rank in ranks]
    if not words or any(rank["kernels"] is None for rank in seen):
        return None
    if not ATTENTION[optimizations.attention].always_seen and not all(rank["in_layers"] for rank in seen):
        return None  # other layers' kernels were seen, and in those that were asked for nothing
    shares = [(_calls(rank["in_layers"], words), rank["layers"]) for rank in seen]
    used, layers = min(shares, key=lambda share: share[0] - share[1])
    if used >= layers:
        return None
    ran = ", ".join(sorted({name for rank in seen for name in rank["kernels"]}))
    how = "was not used" if used == 0 else f"was used in {used} of {layers} layers"
    return f"--attention_backend {optimizations.attention} {how}: what ran is {ran}; choose another"


def _calls(kernels: Mapping[str, int], words: Sequence[str]) -> int:
    return sum(calls for name, calls in kernels.items() if any(word in name for word in words))


def _attention_slicing(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    if not optimizations.attention_slicing:
        return None
    seen = [rank["attention"]["kernels"] for rank in ranks]
    # Slices are attended in parts.
    if None in seen or all(_calls(kernels, ATTENTION["math"].operators) for kernels in seen):
        return None
    ran = ", ".join(sorted({name for kernels in seen for name in kernels}))
    return f"--attention_slicing was not used: what ran is {ran}; leave it out"


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


def _vae_slicing(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    if not optimizations.vae_slicing:
        return None
    most = max((rank["vae"]["images_per_call"] or 0 for rank in ranks), default=0)
    return f"--vae_slicing decoded {most} images in one call; leave it out" if most > 1 else None


def _vae_dtype(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    asked = optimizations.vae_dtype
    ran = {rank["vae_dtype"]["decoded"] for rank in ranks if "vae_dtype" in rank} - {None}
    if asked == "own" or not ran or asked in ran:
        return None
    return f"--vae_dtype {asked} was not used: the VAE decoded in {', '.join(sorted(ran))}; leave it out"


def _tiling(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    if not optimizations.vae_tiling:
        return None
    tiled = [rank["vae"]["tiled"] for rank in ranks]
    if True in tiled or False not in tiled:
        return None
    return "--vae_tiling decoded each image or frame in one tile: it is not larger than a tile; leave it out"


def _cuda_graphs(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    if not optimizations.cuda_graphs or all(rank["cuda_graphs"]["replays"] for rank in ranks):
        return None
    return "--use_cuda_graphs replayed nothing; leave it out"


def _scheduler(optimizations: Optimizations, ranks: Sequence[Effects]) -> str | None:
    if optimizations.scheduler == "own":
        return None
    word = _SCHEDULER_WORDS[optimizations.scheduler]
    others = sorted({rank["scheduler"]["class"] for rank in ranks if word not in rank["scheduler"]["class"]})
    if not others:
        return None
    return f"--scheduler {optimizations.scheduler} was not used: {', '.join(others)} stepped; leave it out"
