"""Prompts from a dataset on the hub: one column by HTTP ranges, so that images beside it stay there.

What was read is kept in a cache, by everything that determines it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlenergy.diffusion.environment.cache import cache_folder
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts.pool import CATEGORY_COLUMN, Pool, make_pool, missing_column

_log = logging.getLogger(__name__)

# fsspec reads ahead by a block after every range. Its default of 5 MiB would bring images along with each
# row group's prompts (gigabytes over the whole set); 64 KiB keeps what travels near the column's own size.
_BLOCK_BYTES = 64 * 1024
_RESOLVE_TIMEOUT_S = 20.0
_INSTEAD = "use --workload.dataset bundled or a local file"


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the hub."""

    dataset_id: str
    configuration: str | None = None
    split: str | None = None
    revision: str | None = None


def read_hub(source: HubDataset, column: str) -> Pool:
    """Read the prompts of a hub dataset, from the request cache where this very revision is in it.

    Raises:
        UserError: no network, no such dataset, revision, split or column, or no permission to read it.
    """
    commit = resolve_commit(source)
    key = {
        "dataset": source.dataset_id,
        "configuration": source.configuration,
        "split": source.split,
        "revision": commit,
        "column": column,
        "category_column": CATEGORY_COLUMN,
    }
    rows = _read_cached(key)
    if rows is None:
        rows = _download(source, commit, column)
        _write_cached(key, rows)
    kept = [(prompt, category) for prompt, category in rows if not _is_blank(prompt)]
    provenance = {
        "source": "hub",
        "dataset": source.dataset_id,
        "configuration": source.configuration,
        "split": source.split,
        "revision": commit,
        "column": column,
        "empty_prompts_left_out": len(rows) - len(kept),
    }
    return make_pool(source.dataset_id, [p for p, _ in kept], [c for _, c in kept], provenance)


def _is_blank(prompt: Any) -> bool:
    """Users cannot fix another's dataset, so its empty rows are left out and counted, not refused."""
    return prompt is None or (isinstance(prompt, str) and not prompt.strip())


def resolve_commit(source: HubDataset, instead: str = _INSTEAD) -> str:
    """The commit that a branch or tag stands for now; a full commit stands for itself, without network.

    instead: advice at the end of an error's line.

    Raises:
        UserError: no network, no such dataset or revision, or no permission to read it.
    """
    if source.revision and re.fullmatch(r"[0-9a-f]{40}", source.revision):
        return source.revision
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(source.dataset_id, revision=source.revision, timeout=_RESOLVE_TIMEOUT_S)
    except Exception as error:
        raise explain_hub(source, error, instead) from error
    if info.sha is None:
        raise UserError(f"the hub names no commit for the dataset {source.dataset_id}; {instead}")
    return str(info.sha)


def _download(source: HubDataset, commit: str, column: str) -> list[tuple[Any, Any]]:
    """All rows' prompt and category in the dataset's order."""
    try:
        return _stream(source, commit, column)
    except UserError:
        raise
    except Exception as error:
        raise explain_hub(source, error) from error


def _stream(source: HubDataset, commit: str, column: str) -> list[tuple[Any, Any]]:
    from datasets import load_dataset, load_dataset_builder

    where: dict[str, Any] = {
        "path": source.dataset_id,
        "name": source.configuration,
        "revision": commit,
        "storage_options": {"hf": {"block_size": _BLOCK_BYTES}},
    }
    builder = load_dataset_builder(**where)
    splits = list(builder.config.data_files or builder.info.splits or {})
    split = choose_split(source, splits)
    columns = _columns(builder, split)
    if column not in columns:
        raise missing_column(source.dataset_id, column, columns)
    wanted = [name for name in dict.fromkeys((column, CATEGORY_COLUMN)) if name in columns]
    # Parquet reads only what is named here; the text formats always read whole lines and have no such option.
    projection: Mapping[str, Any] = {"columns": wanted} if hasattr(builder.config, "columns") else {}
    rows = load_dataset(split=split, streaming=True, **where, **projection).select_columns(wanted)
    return [(row[column], row.get(CATEGORY_COLUMN)) for row in rows]


def choose_split(source: HubDataset, splits: list[str]) -> str:
    """The split that was asked for; without one `train`, or the only one.

    Raises:
        UserError: there is no such split, or there are several.
    """
    wanted = source.split or ("train" if "train" in splits else None)
    if wanted is None and len(splits) == 1:
        return splits[0]
    if wanted is None or wanted not in splits:
        problem = f"has no split {wanted!r}" if wanted else "has several splits"
        raise UserError(
            f"{source.dataset_id} {problem}; name one as {source.dataset_id}:SPLIT out of {', '.join(splits)}"
        )
    return wanted


def _columns(builder: Any, split: str) -> list[str]:
    """Column names from the card, else from the first file's footer (Parquet) or first rows (text)."""
    features = builder.info.features
    if features is None:
        stream = builder.as_streaming_dataset(split)
        features = stream.features or stream._resolve_features().features
    return list(features)


def explain_hub(source: HubDataset, error: Exception, instead: str = _INSTEAD) -> UserError:
    """The hub client's many exceptions as one line that says what to do."""
    from huggingface_hub import errors

    name = source.dataset_id
    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"{name} is gated: accept its terms on the hub and log in with `hf auth login`, or {instead}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"the dataset {name} has no revision {source.revision!r}; check what follows the @")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(
            f"the hub has no dataset {name}, or hides it from you: check its name, "
            f"log in with `hf auth login`, or {instead}"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, (OSError, errors.HTTPError)):
        return UserError(f"cannot read {name} from the hub ({reason}): check the network, or {instead}")
    return UserError(f"cannot read the dataset {name} ({reason}): check its format, or {instead}")


def _read_cached(key: Mapping[str, Any]) -> list[tuple[Any, Any]] | None:
    """Rows stored under a key; None where nothing is, or where the file is not what was written."""
    try:
        stored = json.loads(_cache_file(key).read_text(encoding="utf-8"))
        if stored["key"] == dict(key) and stored["sha256"] == _digest(stored["rows"]):
            return [(prompt, category) for prompt, category in stored["rows"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _write_cached(key: Mapping[str, Any], rows: Sequence[tuple[Any, Any]]) -> None:
    """Store rows under a key: written aside and renamed, so that no reader meets half a file.

    A cache that cannot be written costs the next run a download and nothing else: it is logged, not raised.
    """
    target = _cache_file(key)
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


def _cache_file(key: Mapping[str, Any]) -> Path:
    return cache_folder("requests") / f"{_digest(dict(key))}.json"


def _digest(value: Any) -> str:
    """SHA-256 of the value as sorted JSON; a row is the same whether it is a tuple or a list."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
