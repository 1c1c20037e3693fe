"""From the name of a source to its whole pool of prompts; the images beside them never travel."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path

from mlenergy.diffusion.config.workloads import Request
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts.files import SUFFIXES, read_path
from mlenergy.diffusion.prompts.hub import HubDataset, read_hub
from mlenergy.diffusion.prompts.pool import CATEGORY_COLUMN, Pool, make_pool, missing_column

BUNDLED = "bundled"
# Sets that are part of this package: of images, and of videos, whose prompts say what moves.
BUNDLED_FILES = {BUNDLED: "prompts.jsonl", "bundled-videos": "prompts-video.jsonl"}

# Short names of sets on the hub: id and split.
ALIASES = {
    "open-image-preferences": "data-is-better-together/open-image-preferences-v1:cleaned",
    "evalcrafter": "RaphaelLiu/EvalCrafter_T2V_Dataset",
}
# Where a set on the hub names its prompts otherwise than by default.
COLUMNS = {"evalcrafter": "text"}

# ORG/NAME[/CONFIGURATION][:SPLIT][@REVISION]
_HUB_ID = re.compile(
    r"(?P<id>[\w.-]+/[\w.-]+)(?:/(?P<configuration>[\w.-]+))?(?::(?P<split>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?"
)


def load_pool(dataset: str, column: str = Request.prompt_column) -> Pool:
    """Read all prompts of a source.

    Args:
        dataset: one of the bundled sets, a short name of a set on the hub, a file or folder, or a hub id with
            what may follow it: ORG/NAME[/CONFIGURATION][:SPLIT][@REVISION].
        column: the column that holds prompts; text files have none and ignore it.

    Raises:
        UserError: one line that says what is missing or wrong and what to do.
    """
    if dataset in BUNDLED_FILES:
        return _bundled_pool(dataset, column)
    if column == Request.prompt_column:
        column = COLUMNS.get(dataset, column)
    if dataset not in ALIASES and _is_path(dataset):
        return read_path(Path(dataset).expanduser(), column)
    return read_hub(parse_hub_dataset(dataset), column)


def parse_hub_dataset(dataset: str) -> HubDataset:
    """Split a dataset option into its parts.

    Raises:
        UserError: it is neither a known short name nor of the form that hub ids have.
    """
    found = hub_dataset(ALIASES.get(dataset, dataset))
    if found is None:
        raise UserError(
            f"--workload.dataset {dataset!r} is neither a file, a folder nor the name of a known set; "
            f"use {', '.join((*BUNDLED_FILES, *ALIASES))}, a path, or a hub id "
            "ORG/NAME[/CONFIGURATION][:SPLIT][@REVISION]"
        )
    return found


def hub_dataset(text: str) -> HubDataset | None:
    """The parts of ORG/NAME[/CONFIGURATION][:SPLIT][@REVISION]; None for another text."""
    match = _HUB_ID.fullmatch(text)
    if match is None:
        return None
    return HubDataset(match["id"], match["configuration"], match["split"], match["revision"])


def _bundled_pool(dataset: str, column: str) -> Pool:
    file = resources.files("mlenergy.diffusion") / "data" / BUNDLED_FILES[dataset]
    text = file.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    if column not in rows[0]:
        raise missing_column("the bundled set", column, rows[0])
    provenance = {"source": BUNDLED, "dataset": dataset, "column": column}
    return make_pool(
        "the bundled set", [r[column] for r in rows], [r[CATEGORY_COLUMN] for r in rows], provenance
    )


def _is_path(dataset: str) -> bool:
    """True for what is, or can only have been meant as, a file or folder."""
    looks_local = dataset.startswith(("/", "./", "../", "~")) or dataset.lower().endswith(SUFFIXES)
    return looks_local or Path(dataset).exists()
