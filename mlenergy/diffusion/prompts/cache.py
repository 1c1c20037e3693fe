"""Prompt columns of hub datasets, kept by everything that determines them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/mlenergy/requests`, or below `~/.cache` where that is not set."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mlenergy" / "requests"


def read_cached(key: Mapping[str, Any]) -> list[tuple[Any, Any]] | None:
    """The rows stored for a key; None where there are none, or where the file is not what was written."""
    try:
        stored = json.loads(_file(key).read_text(encoding="utf-8"))
        if stored["key"] == dict(key) and stored["sha256"] == _digest(stored["rows"]):
            return [(prompt, category) for prompt, category in stored["rows"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def write_cached(key: Mapping[str, Any], rows: Sequence[tuple[Any, Any]]) -> None:
    """Store rows under a key: written aside and renamed, so that no reader meets half a file.

    A cache that cannot be written costs the next run a download and nothing else: it is logged, not raised.
    """
    target = _file(key)
    content = {"key": dict(key), "sha256": _digest(rows), "rows": rows}
    aside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", prefix=".writing-", dir=target.parent, delete=False) as stream:
            aside = Path(stream.name)
            json.dump(content, stream, ensure_ascii=True)
        aside.replace(target)
    except (OSError, TypeError) as error:
        _log.warning("prompts are not cached in %s: %s", target.parent, error)
        if aside is not None:
            with contextlib.suppress(OSError):
                aside.unlink()


def _file(key: Mapping[str, Any]) -> Path:
    return cache_folder() / f"{_digest(dict(key))}.json"


def _digest(value: Any) -> str:
    """SHA-256 of the value as sorted JSON; a row is the same whether it is a tuple or a list."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
