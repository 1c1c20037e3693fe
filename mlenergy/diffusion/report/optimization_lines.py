"""The summary's lines on optimizations: effects of each, and what they cost in similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlenergy.diffusion.config.optimizations import Optimizations
from mlenergy.diffusion.report.lines import number
from mlenergy.diffusion.results.units import unit_of

Result = Mapping[str, Any]


def lossy_rows(result: Result) -> list[tuple[str, str]]:
    """Label and text of the line that names what makes images differ; none where nothing does."""
    names = Optimizations(**result["configuration"].get("knobs", {})).lossy
    outputs = unit_of(result).count
    return [("lossy", f"{', '.join(names)}: {outputs} differ from the exact run's")] if names else []


def effect_rows(result: Result) -> list[tuple[str, str]]:
    """Label and text of each line; none where every optimization is at its default."""
    optimizations = Optimizations(**result["configuration"].get("knobs", {}))
    ranks: Sequence[Mapping[str, Any]] = result.get("effects") or []
    return [
        *_compile(optimizations, ranks),
        *_attention(optimizations, ranks),
        *_cache(optimizations, ranks),
        *_weights(ranks),
        *_decoding(optimizations, ranks),
        *_similarity(result),
    ]


def _compile(optimizations: Optimizations, ranks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    if not optimizations.compiled_parts:
        return []
    asked = [] if optimizations.compile_mode is None else [str(optimizations.compile_mode)]
    asked += ["VAE"] if optimizations.compile_vae else []
    asked += ["text encoders"] if optimizations.compile_text_encoders else []
    what = ", ".join(asked)
    slowest = max((rank["compile"] for rank in ranks), key=lambda part: part["compile_s"], default=None)
    if slowest is None:
        return [("compiled", what)]
    late = slowest["compile_in_windows_s"]
    beside = f", {number(late)} s of it in measured windows" if late else ""
    found = slowest.get("cache", {}).get("hits")
    kept = f", {found} of them kept from an earlier run" if found else ""
    return [
        ("compiled", f"{what}: {slowest['graphs']} graphs in {number(slowest['compile_s'])} s{kept}{beside}")
    ]


def _attention(optimizations: Optimizations, ranks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    if optimizations.attention == "auto":
        return []
    kernels = sorted({name for rank in ranks for name in rank["attention"]["kernels"] or ()})
    return [("attention", f"{optimizations.attention}: {', '.join(kernels) or 'kernels not seen'}")]


def _cache(optimizations: Optimizations, ranks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    if optimizations.cache is None:
        return []
    records = [rank["cache"] for rank in ranks]
    shares = [record["computed_share"] for record in records if record["computed_share"] is not None]
    if not shares:
        return [("cache", optimizations.cache)]
    steps = [r["computed_steps_share"] for r in records if r["computed_steps_share"] is not None]
    of_steps = f", {sum(steps) / len(steps):.0%} of the steps in full" if steps else ""
    of_each = [
        f"{name} {part['computed_share']:.0%}"
        for name, part in records[0].get("denoisers", {}).items()
        if part["computed_share"] is not None
    ]
    of_steps += f" ({', '.join(of_each)})" if of_each else ""
    return [
        (
            "cache",
            f"{optimizations.cache} computed {sum(shares) / len(shares):.0%} of its layers' work{of_steps}",
        )
    ]


def _weights(ranks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    parts = ranks[0].get("weights", {}) if ranks else {}
    texts = [
        f"{name} {number(part['bytes'] / 1e9)} GB instead of {number(part['bytes_before'] / 1e9)} GB"
        f"{_by_dtype(part)}"
        for name, part in parts.items()
    ]
    return [("weights", ", ".join(texts))] if texts else []


def _decoding(optimizations: Optimizations, ranks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Calls of the decoder by slices and tiles; the stages' line has the seconds."""
    if not (optimizations.vae_slicing or optimizations.vae_tiling):
        return []
    records = [rank["vae"] for rank in ranks if rank.get("vae", {}).get("decoder_calls")]
    if not records:
        return []
    one = records[0]
    calls = "1 call" if one["decoder_calls"] == 1 else f"{one['decoder_calls']} calls"
    text = f"{calls} of the VAE's decoder for each batch"
    ratio = one.get("cells_ratio")
    if one.get("tiled") and ratio is not None:
        text += f", in tiles that overlap: {number(ratio)} times the latents' cells"
    return [("decoding", text)]


def _similarity(result: Result) -> list[tuple[str, str]]:
    found = result.get("similarity")
    if found is None:
        return []
    ssim, psnr = found["ssim"], found["psnr_db"]
    noise = (
        "all images identical"
        if psnr is None
        else f"PSNR {number(psnr['mean'])} dB (least {number(psnr['minimum'])})"
    )
    structure = f"SSIM {number(ssim['mean'])} (least {number(ssim['minimum'])})"
    worth = " (random weights: says nothing of quality)" if result["weights"] == "random" else ""
    return [("similarity", f"{noise}, {structure}, to {found['reference']}{worth}")]


def _by_dtype(part: Mapping[str, Any]) -> str:
    """Dtypes that a component is stored in, the largest share first; empty where there is one."""
    sizes = sorted(part["bytes_by_dtype"].items(), key=lambda one: -one[1])
    if len(sizes) < 2:
        return ""
    return f" ({', '.join(f'{number(size / 1e9)} GB {dtype}' for dtype, size in sizes)})"
