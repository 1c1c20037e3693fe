"""Presets: options that are known to serve an aim, each with its evidence, from data/presets.json. No torch.

expand_preset.py takes those that a plan accepts. Options that a command line gives are never changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from mlenergy.diffusion.config.optimizations import OPTIMIZATIONS, Optimizations

PresetName = Literal["fastest-lossless", "fastest", "least-energy", "least-memory"]
EvidenceKind = Literal["measured", "published", "by rule"]


@dataclass(frozen=True)
class Evidence:
    """Reason for which an option belongs to a preset.

    kind: measured by this program; published by others; by rule: nobody's number, `says` is the reason.
    source: document or address; None of a rule.
    date: of the source, or of the measuring, as YYYY-MM or YYYY-MM-DD.
    """

    kind: EvidenceKind
    says: str
    date: str
    source: str | None = None


@dataclass(frozen=True)
class Conditions:
    """Runs that an entry is for; an empty one holds for all."""

    devices: tuple[str, ...] = ()
    capabilities: tuple[int, ...] = ()  # first number of a GPU's compute capability
    gpus: tuple[str, ...] = ()  # words of GPUs' names
    models: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    denoisers: tuple[str, ...] = ()
    processes_most: int | None = None
    processes_least: int | None = None
    longer_side_above_px: int | None = None
    dtypes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """Options of one or several presets, with their evidence.

    options: by their names on the command line.
    needs: options that have to be in use before, as the evidence is of both together.
    """

    presets: frozenset[PresetName]
    options: Mapping[str, Any]
    evidence: Evidence
    conditions: Conditions
    needs: tuple[str, ...] = ()

    @property
    def fields(self) -> frozenset[str]:
        """Fields of Optimizations that its options set."""
        return frozenset(FIELD_OF[name] for name in self.options)


@dataclass(frozen=True)
class LeftOut:
    """Options of a preset that a run does not take, and the reason."""

    options: Mapping[str, Any]
    reason: str


@dataclass(frozen=True)
class Preset:
    """Options that a preset has come to in one run."""

    name: PresetName
    taken: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def options(self) -> dict[str, Any]:
        """Options by name that give the same run without the preset."""
        return {name: value for entry in self.taken for name, value in entry.options.items()}


def _options_of_fields() -> dict[str, str]:
    off = Optimizations()
    found = {
        option: field
        for field, record in OPTIMIZATIONS.items()
        for option in record.options_for(getattr(off, field))
    }
    return found | dict.fromkeys(("cache_threshold", "use_teacache", "use_fbcache"), "cache")


# Option of the command line -> field of Optimizations; several options may set one.
FIELD_OF = _options_of_fields()


@cache
def entries() -> tuple[Entry, ...]:
    """All entries of data/presets.json, in the order in which a run tries them."""
    text = files("mlenergy.diffusion").joinpath("data/presets.json").read_text(encoding="utf-8")
    return tuple(_entry(one) for one in json.loads(text)["entries"])


def _entry(content: Mapping[str, Any]) -> Entry:
    conditions: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content.get("for", {}).items()
    }
    return Entry(
        presets=frozenset(content["presets"]),
        options=content["options"],
        evidence=Evidence(**content["evidence"]),
        conditions=Conditions(**conditions),
        needs=tuple(content.get("needs", ())),
    )


def words_of(options: Mapping[str, Any]) -> str:
    """Options as a command line has them."""
    words = [
        f"--{'' if value else 'no_'}{name}" if isinstance(value, bool) else f"--{name} {value}"
        for name, value in options.items()
    ]
    return " ".join(words)


def preset_section(preset: Preset) -> dict[str, Any]:
    """A preset as plain data, as results and plans hold it."""
    return {
        "name": preset.name,
        "options": preset.options,
        "evidence": [
            {
                "options": dict(entry.options),
                "kind": entry.evidence.kind,
                "says": entry.evidence.says,
                "source": entry.evidence.source,
                "date": entry.evidence.date,
            }
            for entry in preset.taken
        ],
        "left_out": [{"options": dict(one.options), "reason": one.reason} for one in preset.left_out],
    }
