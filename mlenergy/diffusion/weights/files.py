"""The files that a model's weights are read from, and how much of them is in memory already. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Names of the files of one component, and whether its library prefers shards where there are both.
_STEMS = (("diffusion_pytorch_model", True), ("model", False), ("pytorch_model", False))
_KINDS = ("safetensors", "bin")
_PROBES = 64  # places of a file that are asked for
_NO_PROBE = "this system does not tell what is in the page cache"


@dataclass(frozen=True)
class Cached:
    """Share of the files' bytes that the page cache holds, by samples; or why it is not known.

    whole: files of which every sample was there.
    """

    share: float | None
    reason: str | None = None
    whole: frozenset[Path] = frozenset()


def component_files(folder: Path, variant: str | None) -> list[Path]:
    """Files that the loaders of diffusers and transformers read for the component in `folder`, in order.

    Safetensors go before pickles, and files of the variant before those without one. Empty for a component
    without weights, such as a tokenizer.
    """
    for kind in _KINDS:
        for mark in (f".{variant}", "") if variant else ("",):
            for stem, shards_first in _STEMS:
                shards = _shards(folder / f"{stem}.{kind}.index{mark}.json")
                single = [path for path in (folder / f"{stem}{mark}.{kind}",) if path.is_file()]
                found = (shards or single) if shards_first else (single or shards)
                if found:
                    return found
    return []


def total_bytes(files: Sequence[Path]) -> int:
    """Size of all files together."""
    return sum(path.stat().st_size for path in files)


def cached_share(files: Sequence[Path]) -> Cached:
    """The part of these files that can be read without their disk; reads a few places of each.

    What was read is in the page cache from then on: a second answer says more than there was.
    """
    held = total = 0.0
    whole = set()
    for path in files:
        share = _held(path)
        if share is None:
            return Cached(None, _NO_PROBE)
        size = path.stat().st_size
        held, total = held + share * size, total + size
        whole |= {path} if share == 1.0 else set()
    return Cached(held / total, None, frozenset(whole)) if total else Cached(None, "there are no files")


def _shards(index: Path) -> list[Path]:
    """Files that an index names, in the order in which they are read."""
    if not index.is_file():
        return []
    names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [index.with_name(name) for name in sorted(names)]


def _held(path: Path) -> float | None:
    """Share of the probed places that a read finds in the page cache; None where no read can tell.

    preadv2(2) with RWF_NOWAIT fails where it would have to wait for the disk, but lets the kernel fetch the
    page, and those behind it unless reads are said to be random; places are asked from the last to the first.
    """
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        found = [_is_held(file, place) for place in _places(path.stat().st_size)]
    except OSError:  # this file system does not know the flag
        return None
    finally:
        os.close(file)
    return sum(found) / len(found) if found else 1.0


def _places(size: int) -> Iterator[int]:
    yield from (size * number // _PROBES for number in reversed(range(min(_PROBES, size))))


def _is_held(file: int, place: int) -> bool:
    try:
        os.preadv(file, [bytearray(1)], place, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    return True
