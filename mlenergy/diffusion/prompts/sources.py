"""From the name of a source to its whole pool of prompts; the images beside them never travel."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError

DEFAULT_COLUMN = "prompt"
CATEGORY_COLUMN = "category"
BUNDLED = "bundled"
BUNDLED_FILE = "prompts.jsonl"
FILE_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".txt")

# Short names of sets on the hub: id and split.
ALIASES = {"open-image-preferences": "data-is-better-together/open-image-preferences-v1:cleaned"}

# ORG/NAME[/CONFIGURATION][:SPLIT][@REVISION]
_HUB_ID = re.compile(
    r"(?P<id>[\w.-]+/[\w.-]+)(?:/(?P<configuration>[\w.-]+))?(?::(?P<split>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?"
)


@dataclass(frozen=True)
class Pool:
    """Every prompt of a source, in the source's own order."""

    prompts: tuple[str, ...]
    categories: tuple[str | None, ...]
    provenance: dict[str, Any]

    @cached_property
    def sha256(self) -> str:
        """Digest of the prompts in order: equal on two machines exactly where the pools are."""
        text = json.dumps(self.prompts, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the hub."""

    dataset_id: str
    configuration: str | None = None
    split: str | None = None
    revision: str | None = None


def load_pool(dataset: str, column: str = DEFAULT_COLUMN) -> Pool:
    """Read all prompts of a source.

    Args:
        dataset: `bundled`, `open-image-preferences`, a file or folder, or a hub id with what may follow it:
            ORG/NAME[/CONFIGURATION][:SPLIT][@REVISION].
        column: the column that holds prompts; text files have none and ignore it.

    Raises:
        UserError: one line that says what is missing or wrong and what to do.
    """
    if dataset == BUNDLED:
        return _bundled_pool(column)
    if dataset not in ALIASES and _is_path(dataset):
        from mlenergy.diffusion.prompts.files import read_path

        return read_path(Path(dataset).expanduser(), column)
    from mlenergy.diffusion.prompts.hub import read_hub

    return read_hub(parse_hub_dataset(dataset), column)


def parse_hub_dataset(dataset: str) -> HubDataset:
    """Split a dataset option into its parts.

    Raises:
        UserError: it is neither a known short name nor of the form that hub ids have.
    """
    match = _HUB_ID.fullmatch(ALIASES.get(dataset, dataset))
    if match is None:
        known = ", ".join((BUNDLED, *ALIASES))
        raise UserError(
            f"--workload.dataset {dataset!r} is no file, no folder and no set that is known; "
            f"use {known}, a path, or a hub id ORG/NAME[/CONFIGURATION][:SPLIT][@REVISION]"
        )
    return HubDataset(match["id"], match["configuration"], match["split"], match["revision"])


def missing_column(where: str, column: str, columns: Iterable[str]) -> UserError:
    """The error for a column that a set does not have, with those that it has."""
    names = ", ".join(sorted(columns))
    return UserError(f"{where} has no column {column!r}; set --workload.prompt_column to one of: {names}")


def make_pool(
    where: str, prompts: Iterable[Any], categories: Iterable[Any], provenance: dict[str, Any]
) -> Pool:
    """Check what was read and freeze it.

    Raises:
        UserError: a prompt is empty or not text, or there is none at all.
    """
    texts = tuple(_checked(where, row, prompt) for row, prompt in enumerate(prompts, start=1))
    if not texts:
        raise UserError(f"{where} holds no prompts; name a source that has at least one")
    return Pool(texts, tuple(None if c in (None, "") else str(c) for c in categories), provenance)


def _checked(where: str, row: int, prompt: Any) -> str:
    if prompt is not None and not isinstance(prompt, str):
        kind = type(prompt).__name__
        raise UserError(
            f"{where}: the prompt of row {row} is a {kind}, not text; choose another --workload.prompt_column"
        )
    if prompt is None or not prompt.strip():
        raise UserError(f"{where}: the prompt of row {row} is empty; remove the row or fill it in")
    return prompt


def _bundled_pool(column: str) -> Pool:
    text = (resources.files("mlenergy.diffusion") / "data" / BUNDLED_FILE).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    if column not in rows[0]:
        raise missing_column("the bundled set", column, rows[0])
    provenance = {"source": BUNDLED, "dataset": BUNDLED, "column": column}
    return make_pool(
        "the bundled set", [r[column] for r in rows], [r[CATEGORY_COLUMN] for r in rows], provenance
    )


def _is_path(dataset: str) -> bool:
    """Whether it is, or can only have been meant as, a file or folder."""
    looks_local = dataset.startswith(("/", "./", "../", "~")) or dataset.lower().endswith(FILE_SUFFIXES)
    return looks_local or Path(dataset).exists()
