"""Draw rows and write them: resumable by a line for each file, and complete when metadata.jsonl is there."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from mlenergy.diffusion.dataset.captions import UnusableRow, caption_of
from mlenergy.diffusion.dataset.draw import ALGORITHM, drawn_rows
from mlenergy.diffusion.dataset.images import CROP, STEPS, decoded, save_png
from mlenergy.diffusion.dataset.options import DatasetArgs
from mlenergy.diffusion.dataset.source import METADATA, Row, Source
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.atomic import cannot_write, write_json, written_aside
from mlenergy.diffusion.version import __version__

RECORD = "dataset.json"
_PROGRESS = "progress.jsonl"
_SHOWN = 3  # rows in an error's line
_KEPT = ("file_name", "text", "row", "source_file")  # of an entry, in metadata.jsonl
_OURS = (RECORD, _PROGRESS, METADATA, ".lock")

Entry = dict[str, Any]  # a written image: draw, file_name, text, row, sha256, ...


@dataclass
class _Progress:
    """Images that are written, and rows that gave none, by their place in the draw."""

    done: dict[int, Entry] = field(default_factory=dict)
    unusable: dict[int, str] = field(default_factory=dict)


def prepare(args: DatasetArgs, source: Source, say: Callable[[str], None]) -> dict[str, Any]:
    """Write the folder, or go on with it; returns the content of dataset.json.

    say: told of progress, in lines.

    Raises:
        UserError: too few rows, rows that cannot be used, or a folder that holds something else.
    """
    count = source.count()
    if count < args.num_samples:
        raise UserError(
            f"{source.name} has {count} rows, fewer than --num_samples {args.num_samples}; "
            f"ask for {count} or fewer"
        )
    request = _request(args, source, count)
    finished = _claim(args.out, request)
    if finished is not None:
        say(f"{args.out} is complete already: {finished['images']} images")
        return finished
    progress = _read_progress(args.out)
    if progress.done:
        say(f"{args.out}: going on after {len(progress.done)} of {args.num_samples} images")
    with _progress_lines(args.out) as write_line:
        _fill(args, source, count, progress, write_line, say)
    if progress.unusable and not args.skip_unusable:
        raise UserError(
            f"{len(progress.unusable)} of the {args.num_samples} drawn rows of {source.name} cannot be used: "
            f"{_first(progress.unusable.values())}; correct them, or give --skip_unusable to draw others"
        )
    if len(progress.done) < args.num_samples:
        raise UserError(
            f"only {len(progress.done)} rows of {source.name} can be used ({len(progress.unusable)} cannot: "
            f"{_first(progress.unusable.values())}); ask for {len(progress.done)} --num_samples or fewer"
        )
    return _complete(args.out, request, progress)


def _fill(
    args: DatasetArgs,
    source: Source,
    count: int,
    progress: _Progress,
    write_line: Callable[[Entry], None],
    say: Callable[[str], None],
) -> None:
    """Pass through the source until there are enough images; another pass replaces rows that gave none."""
    draws = enumerate(drawn_rows(args.seed, count))
    missing = args.num_samples
    while missing > 0:
        part = dict(islice(draws, missing))
        if not part:
            return
        open_draws = {row: draw for draw, row in part.items() if draw not in progress.done}
        for row in _all_of(source, set(open_draws)):
            draw = open_draws[row.index]
            try:
                entry = _write(args, source, row, draw)
            except UnusableRow as error:
                progress.unusable[draw] = f"row {row.name or row.index}: {error}"
                continue
            progress.done[draw] = entry
            write_line(entry)
            if len(progress.done) % 500 == 0:
                say(f"{len(progress.done)} of {args.num_samples} images")
        if not args.skip_unusable:
            return
        missing = args.num_samples - len(progress.done)


def _all_of(source: Source, wanted: set[int]) -> Iterator[Row]:
    seen = 0
    for row in source.rows(wanted):
        seen += 1
        yield row
    if seen < len(wanted):
        raise UserError(
            f"{source.name} has fewer rows than it says: {len(wanted) - seen} of {len(wanted)} drawn ones "
            "are not there; make its files whole"
        )


def _write(args: DatasetArgs, source: Source, row: Row, draw: int) -> Entry:
    caption = caption_of(
        row.values, args.caption_column, args.caption_template, source.labels, plain_labels=args.plain_labels
    )
    if row.image is None:
        raise UnusableRow("it has no image")
    name = f"{draw:06d}.png"
    image = decoded(row.image)
    digest, enlarged = save_png(image, args.out / name, args.size)
    entry = {"draw": draw, "file_name": name, "text": caption, "row": row.index}
    entry |= {"sha256": digest, "enlarged": enlarged}
    return entry if row.name is None else {**entry, "source_file": row.name}


def _request(args: DatasetArgs, source: Source, count: int) -> dict[str, Any]:
    """Everything that decides the content of the folder."""
    return {
        "source": source.provenance(),
        "source_rows": count,
        "num_samples": args.num_samples,
        "seed": args.seed,
        "draw": ALGORITHM,
        "image_column": args.image_column,
        "caption_column": args.caption_column if args.caption_template is None else None,
        "caption_template": args.caption_template,
        "plain_labels": args.plain_labels,
        "skip_unusable": args.skip_unusable,
        "size_px": args.size,
        "image_steps": STEPS if args.size is None else f"{STEPS}; {CROP}",
    }


def _claim(out: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Take the folder for a request; returns its record where it is complete already.

    Raises:
        UserError: it holds something else, or images of it have changed or gone.
    """
    record = read_record(out)
    if record is None:
        others = [file.name for file in sorted(out.iterdir()) if file.name not in _OURS]
        if others:
            raise UserError(
                f"{out} holds other files ({_first(others)}) and no {RECORD}; choose another --out"
            )
        write_json(out / RECORD, {"schema_version": 1, "state": "incomplete", "request": request}, "--out")
        return None
    old = record.get("request", {})
    differing = [name for name in request if old.get(name) != request[name] and name != "skip_unusable"]
    if differing:
        raise UserError(
            f"{out} holds another dataset (different {_first(differing)}); choose another --out, or remove it"
        )
    if record["state"] != "complete":
        return None
    if hashlib.sha256((out / METADATA).read_bytes()).hexdigest() != record["metadata_sha256"]:
        raise UserError(f"{out / METADATA} has changed since it was written; remove {out} to prepare it anew")
    return record


def read_record(folder: Path) -> dict[str, Any] | None:
    """The content of a folder's dataset.json; None where there is none.

    Raises:
        UserError: it cannot be read.
    """
    file = folder / RECORD
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        content["state"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read ({error}); remove the folder to prepare it anew") from error
    return dict(content)


def _read_progress(out: Path) -> _Progress:
    """The images that are on disk as they were written; a line that was cut off counts as none."""
    progress = _Progress()
    try:
        lines = (out / _PROGRESS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return progress
    for line in lines:
        try:
            entry = json.loads(line)
            content = (out / entry["file_name"]).read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if hashlib.sha256(content).hexdigest() == entry["sha256"]:
            progress.done[int(entry["draw"])] = entry
    return progress


@contextlib.contextmanager
def _progress_lines(out: Path) -> Iterator[Callable[[Entry], None]]:
    """Yield what appends a line; it is in the file before the next image is written."""
    path = out / _PROGRESS
    try:
        with path.open("a", encoding="ascii") as file:
            if file.tell() > 0:
                file.write("\n")  # after a line that was cut off

            def write(entry: Entry) -> None:
                file.write(json.dumps(entry) + "\n")
                file.flush()

            yield write
    except OSError as error:
        raise cannot_write(path, error, "--out") from error


def _complete(out: Path, request: Mapping[str, Any], progress: _Progress) -> dict[str, Any]:
    entries = [progress.done[draw] for draw in sorted(progress.done)]
    images = hashlib.sha256()
    with written_aside(out / METADATA, "--out") as aside, aside.open("w", encoding="utf-8") as stream:
        for entry in entries:
            images.update(f"{entry['file_name']} {entry['sha256']}\n".encode())
            kept = {name: entry[name] for name in _KEPT if name in entry}
            stream.write(json.dumps(kept, ensure_ascii=False) + "\n")
    record = {
        "schema_version": 1,
        "state": "complete",
        "request": request,
        "images": len(entries),
        "enlarged_images": sum(entry["enlarged"] for entry in entries),
        "unusable_rows": [progress.unusable[draw] for draw in sorted(progress.unusable)],
        "metadata_sha256": hashlib.sha256((out / METADATA).read_bytes()).hexdigest(),
        "images_sha256": images.hexdigest(),  # of the lines `FILE_NAME SHA-256`
        "versions": _versions(),
    }
    write_json(out / RECORD, record, "--out")
    (out / _PROGRESS).unlink(missing_ok=True)
    return record


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"mlenergy": __version__, **{name: version(name) for name in ("datasets", "pillow", "pyarrow")}}


def _first(texts: Iterable[str]) -> str:
    shown = list(texts)
    more = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
