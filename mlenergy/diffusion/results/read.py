"""Reading results.json of this program, of any version that it knows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.find import Found
from mlenergy.diffusion.results.flatten import NotAResultError, flatten, plain_text
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.record import ResultRecord, State
from mlenergy.diffusion.results.units import SCHEMA_VERSIONS, unit_of

# A results.json of this program always has these; one of another program, or a torn one, has not.
_NEEDED = ("schema_version", "completed", "generation_time", "prompts", "generation_results", "configuration")

_LARGEST_BYTES = 1 << 28  # a result with its prompts has thousands of bytes an image
_STATES = ("planned", "running", "complete", "failed", "effects_failed", "interrupted")  # of status.json


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
    if result["schema_version"] not in SCHEMA_VERSIONS:
        raise UserError(
            f"{file} has schema version {result['schema_version']}, this program writes "
            f"{SCHEMA_VERSIONS[-1]} and older; add --overwrite_results, or choose another --workload.base_dir"
        )
    return result


def is_complete(paths: RunPaths) -> bool:
    """True where the folder holds a whole result of the work that was planned, by optimizations that acted.

    Whole: its file is intact and every image that it names is there.

    Raises:
        UserError: a result is there but was written by a newer version, or cannot be read.
    """
    result = read_result(paths.results)
    unfinished = ("executed_failed", "effects_pending", "effects_failed")
    if result is None or any(result.get(key) for key in unfinished):
        return False
    return is_whole(paths, result)


def is_whole(paths: RunPaths, result: Mapping[str, Any]) -> bool:
    """True where a result agrees with itself and every image that it names is there."""
    return _gap(paths, result) is None


def broken(paths: RunPaths) -> str | None:
    """Reason for which a results.json that is there holds no whole result; None where it does, or is absent.

    Raises:
        UserError: as `read_result`.
    """
    if not paths.results.exists():
        return None
    result = read_result(paths.results)
    return "results.json is cut off, or not of this program" if result is None else _gap(paths, result)


def _gap(paths: RunPaths, result: Mapping[str, Any]) -> str | None:
    count = result["completed"]
    images = result["generation_results"]
    if not count or count != len(images) or count != len(result["prompts"]):
        return f"results.json names {len(images)} {unit_of(result).count} of {count}"
    unit = unit_of(result)
    names = [image.get(unit.file) for image in images]
    missing = [name for name in names if name is not None and not _has_content(paths.folder / name)]
    more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"{missing[0]} is missing or empty{more}" if missing else None


def _has_content(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


@dataclass(frozen=True)
class Loaded:
    """A file of a run as one flat record, and all of its content where the record is complete."""

    record: ResultRecord
    content: dict[str, Any] | None


def load_found(root: Path, found: Found) -> Loaded:
    """Read a file that `find_results(root)` has found; a folder that it did not enter has its reason."""
    if found.state is not None:
        record = ResultRecord(folder=found.folder, file="", state=found.state, reason=found.reason)
        return Loaded(record, None)
    return load_result(root / found.folder / found.file, found.folder)


def load_result(file: Path, folder: str | None = None) -> Loaded:
    """Read a results.json of any version, or the file that a run without a result has left. Never fails.

    Args:
        file: results.json, results_interrupted.json or status.json.
        folder: the record's folder; by default the file's own.
    """
    place: dict[str, Any] = {
        "folder": file.parent.as_posix() if folder is None else folder,
        "file": file.name,
    }
    try:
        stamp = file.stat()
        place |= {"source_bytes": stamp.st_size, "source_mtime_ns": stamp.st_mtime_ns}
        place |= {"source_ctime_ns": stamp.st_ctime_ns}
        content = _json_of(file, stamp.st_size)
        if file.name != "results.json":
            return Loaded(ResultRecord(**place, **_without_result(content)), None)
        columns = flatten(content) | _file_counts(file.parent, content)
        state, reason = _state_of(content)
    except NotAResultError as error:
        return Loaded(ResultRecord(**place, state=cast(State, error.state), reason=error.reason), None)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        return Loaded(ResultRecord(**place, state="unreadable", reason=reason), None)
    record = ResultRecord(**place, state=state, reason=reason, **columns)
    return Loaded(record, content if state == "complete" else None)


def _json_of(file: Path, size: int) -> Any:
    if size > _LARGEST_BYTES:
        raise NotAResultError("unreadable", f"is larger than {_LARGEST_BYTES >> 20} MiB")
    try:
        return json.loads(file.read_bytes(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # torn, or not JSON at all
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise NotAResultError("broken", f"not whole JSON: {detail[:100]}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _without_result(content: Any) -> dict[str, Any]:
    """State and reason of a run that left no result, from what it did leave."""
    if not isinstance(content, dict):
        raise NotAResultError("foreign", "not of this program: its JSON is no object")
    if isinstance(done := content.get("iterations"), list):  # results_interrupted.json
        return {"state": "interrupted", "reason": f"stopped after {len(done)} measured iterations"}
    said = content.get("state")
    state: State = said if said in ("interrupted", "failed", "effects_failed") else "running"
    if not isinstance(said, str) or said not in _STATES:
        raise NotAResultError("foreign", "not a status of this program")
    if said == "complete":
        state = "broken"  # the numbers of a run that ended well are gone
        return {"state": state, "reason": "its status says complete, but results.json is not there"}
    message = content.get("message") if isinstance(content.get("message"), str) else None
    stage = content.get("stage") if isinstance(content.get("stage"), str) else "unknown"
    return {"state": state, "reason": plain_text(message or f"{said} while {stage}")}


def _state_of(content: Mapping[str, Any]) -> tuple[State, str | None]:
    if other := content.get("executed_failed"):
        return "failed", plain_text("; ".join(map(str, other if isinstance(other, list) else [other])))
    failed = content.get("effects_failed")
    if failed:
        lines = failed if isinstance(failed, list) else [failed]
        return "effects_failed", plain_text("; ".join(map(str, lines)))
    if content.get("effects_pending"):
        return "effects_pending", plain_text(str(content.get("effects_reason") or "not looked at yet"))
    return "complete", None


def _file_counts(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Files that a result names, and how many of them are not there."""
    outputs, unit = content.get("generation_results"), unit_of(content)
    names = [
        output[unit.file]
        for output in (outputs if isinstance(outputs, list) else [])
        if isinstance(output, dict) and isinstance(output.get(unit.file), str)
    ]
    present: dict[str, set[str]] = {}
    missing = 0
    for name in names:
        parent, _, own = name.rpartition("/")
        if parent not in present:
            present[parent] = _names_in(folder, parent)
        missing += own not in present[parent]
    return {f"{unit.count}_saved_count": len(names), f"{unit.count}_missing_count": missing}


def _names_in(folder: Path, parent: str) -> set[str]:
    if "\0" in parent or parent.startswith("/") or ".." in parent.split("/"):
        return set()  # a result names files of its own folder only
    try:
        with os.scandir(folder / parent) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()
