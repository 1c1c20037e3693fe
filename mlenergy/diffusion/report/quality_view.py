"""A result's quality as lines: each value with what it was computed of, and what makes it doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlenergy.diffusion.quality.mlperf import beside
from mlenergy.diffusion.report.lines import number

LABELS = {
    "fid": "FID",
    "kid": "KID",
    "clip_score": "CLIP score",
    "lpips": "LPIPS",
    "ssim": "SSIM",
    "psnr_db": "PSNR",
}
_DIGEST = 12  # characters of one that are shown


def section_rows(section: Mapping[str, Any], result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and text of each line.

    Args:
        section: a result's `quality`.
        result: the result that it is of.
    """
    rows: list[tuple[str, str]] = []
    if section.get("of_random_weights"):
        rows.append(("random weights", "these values say nothing of the model, and no table shows them"))
    metrics: Mapping[str, Any] = section.get("metrics") or {}
    for name, label in LABELS.items():
        if name in metrics:
            rows.append((label, metric_text(name, metrics[name])))
            rows += [("", note) for note in metrics[name].get("notes") or []]
    return [*rows, *beside(section, result.get("configuration") or {})]


def values_text(section: Mapping[str, Any]) -> str | None:
    """The known values in one line; None where there are none, as of random weights."""
    known = {name: section.get(name) for name in LABELS}
    texts = [
        f"{LABELS[name]} {value_text(name, value)}" for name, value in known.items() if value is not None
    ]
    return ", ".join(texts) or None


def value_text(name: str, value: float) -> str:
    """A metric's value with its unit."""
    return number(value) + (" dB" if name == "psnr_db" else "")


def metric_text(name: str, entry: Mapping[str, Any]) -> str:
    """A value, the images and the reference it is of, and its network."""
    value = entry["value"]
    text = f"not known: {entry['reason']}" if value is None else value_text(name, value)
    deviation = entry.get("standard_deviation")
    if value is not None and deviation is not None:
        over = f"over {entry['settings']['subsets']} subsets" if name == "kid" else "over the images"
        text += f" (standard deviation {number(deviation)} {over})"
    reference = entry.get("reference")
    images = f"{entry['images']:,} images"
    if reference is not None:
        count = "" if reference["images"] is None else f"{reference['images']:,} of "
        images += f" against {count}{reference['path']}"
    if entry.get("identical"):
        images += f", {entry['identical']:,} of them identical"
    extractor = entry.get("extractor")
    by = "" if extractor is None else f"; {extractor['weights']} (sha256 {extractor['sha256'][:_DIGEST]})"
    return f"{text}, {images}{by}"
