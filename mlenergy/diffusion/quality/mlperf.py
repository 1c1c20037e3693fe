"""Bounds that MLPerf sets for SDXL, beside a run of its set-up. A submission takes MLPerf's own harness."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


@functools.cache
def sdxl() -> Mapping[str, Any]:
    """Bounds, set-up and source."""
    content: dict[str, Any] = json.loads(
        files("mlenergy.diffusion").joinpath("data/mlperf-sdxl.json").read_text(encoding="utf-8")
    )
    return content


def is_its_set_up(configuration: Mapping[str, Any]) -> bool:
    """True of a run with MLPerf's model, size, steps and guidance."""
    return all(configuration.get(name) == value for name, value in sdxl()["configuration"].items())


def beside(section: Mapping[str, Any], configuration: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of each value's place in the bounds, and of what keeps the values from being comparable.

    Args:
        section: a result's `quality`.
        configuration: that of the result.

    Returns:
        Nothing for a run of another set-up, or without FID and CLIP score.
    """
    metrics: Mapping[str, Any] = section.get("metrics") or {}
    known = {name: section[name] for name in sdxl()["bounds"] if section.get(name) is not None}
    if not known or not is_its_set_up(configuration):
        return []
    rows = []
    for name, value in known.items():
        low, high = sdxl()["bounds"][name]
        place = "within" if low <= value <= high else "below" if value < low else "above"
        rows.append(("MLPerf", f"{name} {value:.5f} lies {place} {low} to {high}, not a submission"))
    apart = _apart(metrics, known, configuration)
    if apart:
        rows.append(("", f"nor comparable with its bounds: {'; '.join(apart)}"))
    return rows


def _apart(
    metrics: Mapping[str, Any], known: Mapping[str, float], configuration: Mapping[str, Any]
) -> list[str]:
    """What differs from MLPerf's way to measure accuracy; its prompts and noise are not known here."""
    found = []
    count = metrics[next(iter(known))]["images"]
    if count != sdxl()["images"]:
        found.append(f"{count:,} images, not the {sdxl()['images']:,} of its prompts")
    if configuration.get("negative_prompt") != sdxl()["negative_prompt"]:
        found.append("another negative prompt")
    scheduler = (configuration.get("knobs") or {}).get("scheduler", "own")
    if scheduler not in ("own", "euler"):
        found.append(f"scheduler {scheduler}, not Euler")
    if "fid" in known:
        fid = metrics["fid"]
        if (fid["reference"] or {}).get("kind") != "statistics":
            found.append("FID against images, not its statistics of COCO 2014 (val2014.npz)")
        if fid["extractor"]["settings"].get("preprocessing") != "pytorch-fid":
            found.append("FID with other inputs than pytorch-fid's")
    if "clip_score" in known and "clip-vit-base-patch32" not in metrics["clip_score"]["extractor"]["weights"]:
        found.append("CLIP score of another model than ViT-B/32")
    return found
