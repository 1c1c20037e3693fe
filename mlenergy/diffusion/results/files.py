"""Writing and recognising the files of a run: whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.build import SCHEMA_VERSION
from mlenergy.diffusion.results.lock import cannot_write
from mlenergy.diffusion.results.paths import RunPaths

if TYPE_CHECKING:
    from mlenergy.diffusion.measure.samples import Timeline
    from mlenergy.diffusion.prompts.sampling import PromptSet

# A results.json of this program always has these; one of another program, or a torn one, has not.
_NEEDED = ("schema_version", "completed", "generation_time", "prompts", "generation_results", "configuration")


def save_requests(paths: RunPaths, prompts: PromptSet) -> None:
    """Write requests.json: every prompt in full, its seed, and where it is from.

    Raises:
        UserError: the file cannot be written.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "provenance": prompts.provenance,
        "requests": [asdict(r) for r in prompts.requests],
        "warmup_requests": [asdict(r) for r in prompts.warmup_requests],
    }
    write_json(paths.requests, content)


def save_result(paths: RunPaths, result: Mapping[str, Any]) -> None:
    """Write results.json, the last file of a run: from then on the run counts as complete.

    Raises:
        ValueError: a figure is NaN or infinite.
        UserError: the file cannot be written.
    """
    write_json(paths.results, result)


def save_timeline(paths: RunPaths, timeline: Timeline) -> None:
    """Write timeline.parquet: one row a sample, the period in the file's metadata.

    Raises:
        UserError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = asdict(timeline)
    period_s = columns.pop("period_s")
    # Named, since a column that the driver never answered holds nothing to tell its type by.
    texts, counts = ("node", "uuid"), ("temperature_c", "sm_clock_mhz", "event_reasons", "window")
    kinds = dict.fromkeys(texts, pa.string()) | dict.fromkeys(counts, pa.int64())
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in columns])
    table = pa.table(columns, schema=schema).replace_schema_metadata({"period_s": repr(period_s)})
    with written_aside(paths.timeline) as aside:
        pq.write_table(table, aside)


def write_json(path: Path, content: Any) -> None:
    """Write JSON aside, force it to disk, rename it: a reader meets the old file or the new one.

    All text is escaped to ASCII, so that no prompt is lost or acts on a terminal.

    Raises:
        ValueError: a number is NaN or infinite, with its place.
        UserError: the file cannot be written.
    """
    wrong = _not_finite(content, path.name)
    if wrong is not None:
        raise ValueError(f"{wrong}; not written")
    text = json.dumps(content, indent=2, ensure_ascii=True, allow_nan=False)
    with written_aside(path) as aside:
        aside.write_text(text + "\n", encoding="ascii")


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a name in the same folder to write to; on success force it to disk and rename it to `path`.

    Raises:
        UserError: the folder or file cannot be written; what was written aside is removed.
    """
    aside = path.with_name(f".writing-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        force_to_disk(aside)
        aside.replace(path)
        force_to_disk(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def force_to_disk(path: Path) -> None:
    """Let a file's content, or a folder's names, survive a power cut.

    Raises:
        OSError: the file system cannot.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_complete(paths: RunPaths) -> bool:
    """Whether the folder holds a whole result: its file is intact and every image it names is there.

    Raises:
        UserError: a result is there but was written by a newer version, or cannot be read.
    """
    try:
        result = json.loads(paths.results.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(
            f"cannot read {paths.results}: {error.strerror}; make it readable or move it"
        ) from error
    except (ValueError, RecursionError):  # torn, or no JSON at all
        return False
    if not isinstance(result, dict) or any(key not in result for key in _NEEDED):
        return False
    if result["schema_version"] != SCHEMA_VERSION:
        raise UserError(
            f"{paths.results} has schema version {result['schema_version']}, this program writes "
            f"{SCHEMA_VERSION}; add --overwrite_results, or choose another --workload.base_dir"
        )
    return _is_consistent(paths, result)


def _is_consistent(paths: RunPaths, result: Mapping[str, Any]) -> bool:
    count = result["completed"]
    images = result["generation_results"]
    if not count or count != len(images) or count != len(result["prompts"]):
        return False
    names = [image.get("image") for image in images]
    return all(name is None or _has_content(paths.folder / name) for name in names)


def _has_content(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _not_finite(value: Any, where: str) -> str | None:
    """The place of the first number that JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} is {value}"
    if isinstance(value, Mapping):
        inner = (_not_finite(v, f"{where}.{k}") for k, v in value.items())
    elif isinstance(value, (list, tuple)):
        inner = (_not_finite(v, f"{where}[{i}]") for i, v in enumerate(value))
    else:
        return None
    return next((found for found in inner if found is not None), None)
