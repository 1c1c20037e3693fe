"""Digests of a result: an edited number, changed request or other image is seen. They are no signature."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlenergy.diffusion.results.paths import RunPaths

ALGORITHM = "SHA-256; of JSON: of its values, keys sorted, no blanks, ASCII, without digests.result"


def content_digest(content: Any) -> str:
    """SHA-256 of JSON values, whatever the order of keys and the blanks in the file."""
    # Through text and back, so that tuples and numbers of numpy are what a reader of the file gets.
    plain = json.loads(json.dumps(content, allow_nan=False))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digests_of_files(paths: RunPaths) -> dict[str, Any]:
    """The `digests` of a result whose other files are written: of requests.json, images and timeline."""
    folders = [folder for folder in (paths.images, paths.videos, paths.latents) if folder.is_dir()]
    outputs = [file for folder in folders for file in sorted(folder.iterdir())]
    files = [*outputs, *([paths.timeline] if paths.timeline.is_file() else [])]
    return {
        "algorithm": ALGORITHM,
        "requests": content_digest(json.loads(paths.requests.read_bytes())),
        "files": {paths.relative(file): file_digest(file) for file in files},
    }


def sealed(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with the digest of its content; one that has no `digests` stays as it is."""
    if "digests" not in result:
        return dict(result)
    digests = {**result["digests"], "result": result_digest(result)}
    return {**result, "digests": digests}


def result_digest(result: Mapping[str, Any]) -> str:
    """Digest of everything in a result but this digest itself."""
    digests = {name: value for name, value in result["digests"].items() if name != "result"}
    return content_digest({**result, "digests": digests})


def is_as_written(result: Mapping[str, Any]) -> bool:
    """False where a result's content is not that of its digest; True also for one that has none."""
    digests = result.get("digests")
    return digests is None or (isinstance(digests, dict) and digests.get("result") == result_digest(result))
