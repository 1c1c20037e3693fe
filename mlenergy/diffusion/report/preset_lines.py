"""Lines on a preset: what it has come to, on which evidence, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlenergy.diffusion.config.presets import words_of

Configuration = Mapping[str, Any]


def preset_rows(configuration: Configuration) -> list[tuple[str, str]]:
    """Label and text of each line of a plan; none without a preset."""
    preset = configuration.get("preset")
    if preset is None:
        return []
    rows = [("preset", summary_text(preset))]
    rows += [("", f"{words_of(one['options'])}: {_evidence_text(one)}") for one in preset["evidence"]]
    refused: dict[str, list[str]] = {}
    for one in preset["left_out"]:
        refused.setdefault(one["reason"], []).append(words_of(one["options"]))
    rows += [("left out", f"{', '.join(options)}: {reason}") for reason, options in refused.items()]
    return rows


def preset_summary(configuration: Configuration) -> list[tuple[str, str]]:
    """Label and text of the line of a finished run; none without a preset."""
    preset = configuration.get("preset")
    return [] if preset is None else [("preset", summary_text(preset))]


def summary_text(preset: Mapping[str, Any]) -> str:
    """A preset's name and options, as a command line has them."""
    return f"{preset['name']}: {words_of(preset['options']) or 'no option of it is for this run'}"


def _evidence_text(one: Mapping[str, Any]) -> str:
    source = "" if one["source"] is None else f"; {one['source']}"
    return f"{one['kind']}, {one['date']}: {one['says']}{source}"
