"""Reading results.json of this program, of any version that it knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.build import SCHEMA_VERSION
from mlenergy.diffusion.results.paths import RunPaths

# A results.json of this program always has these; one of another program, or a torn one, has not.
_NEEDED = ("schema_version", "completed", "generation_time", "prompts", "generation_results", "configuration")


def read_result(file: Path) -> dict[str, Any] | None:
    """The content of a results.json; None where the file is absent, torn or of another program.

    Results of every minor version read alike: a key that an earlier one lacks is absent.

    Raises:
        UserError: the file cannot be read, or was written by a newer version of this program.
    """
    try:
        result = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; make it readable or move it") from error
    except (ValueError, RecursionError):  # torn, or not JSON at all
        return None
    if not isinstance(result, dict) or any(key not in result for key in _NEEDED):
        return None
    if result["schema_version"] != SCHEMA_VERSION:
        raise UserError(
            f"{file} has schema version {result['schema_version']}, this program writes "
            f"{SCHEMA_VERSION}; add --overwrite_results, or choose another --workload.base_dir"
        )
    return result


def is_complete(paths: RunPaths) -> bool:
    """True where the folder holds a whole result whose optimizations are known to have acted.

    Whole: its file is intact and every image that it names is there.

    Raises:
        UserError: a result is there but was written by a newer version, or cannot be read.
    """
    result = read_result(paths.results)
    if result is None or result.get("effects_pending") or result.get("effects_failed"):
        return False
    return is_whole(paths, result)


def is_whole(paths: RunPaths, result: Mapping[str, Any]) -> bool:
    """True where a result agrees with itself and every image that it names is there."""
    count = result["completed"]
    images = result["generation_results"]
    if not count or count != len(images) or count != len(result["prompts"]):
        return False
    names = [image.get("image") for image in images]
    return all(name is None or _has_content(paths.folder / name) for name in names)


def _has_content(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
