"""Every prompt of a source, checked and frozen: what the readers of all sources return."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlenergy.diffusion.config.option import text_fault
from mlenergy.diffusion.errors import UserError

CATEGORY_COLUMN = "category"


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


def make_pool(
    where: str, prompts: Iterable[Any], categories: Iterable[Any], provenance: dict[str, Any]
) -> Pool:
    """Check what was read and freeze it.

    Raises:
        UserError: a prompt is empty, not text or no valid text, or there is none at all.
    """
    texts = tuple(_checked(where, row, prompt) for row, prompt in enumerate(prompts, start=1))
    if not texts:
        raise UserError(f"{where} holds no prompts; name a source that has at least one")
    return Pool(texts, tuple(None if c in (None, "") else str(c) for c in categories), provenance)


def missing_column(where: str, column: str, columns: Iterable[str]) -> UserError:
    """The error for a column that a set does not have, with those that it has."""
    names = ", ".join(sorted(columns))
    return UserError(f"{where} has no column {column!r}; set --workload.prompt_column to one of: {names}")


def _checked(where: str, row: int, prompt: Any) -> str:
    if prompt is not None and not isinstance(prompt, str):
        kind = type(prompt).__name__
        raise UserError(
            f"{where}: the prompt of row {row} is a {kind}, not text; choose another --workload.prompt_column"
        )
    if prompt is None or not prompt.strip():
        raise UserError(f"{where}: the prompt of row {row} is empty; remove the row or fill it in")
    fault = text_fault(prompt)
    if fault is not None:
        raise UserError(f"{where}: the prompt of row {row} {fault}")
    return prompt
