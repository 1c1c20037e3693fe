#!/usr/bin/env python3
"""Seconds of loading sharded weights: shard after shard, side by side, and read ahead.

    python scripts/bench_loading.py [--device cuda] [--megabytes 4000] [--rounds 5] [--json FILE]

A FLUX transformer is saved in eight shards or a few more. Every round loads it in both ways, in an order
drawn anew: with its files in memory (the page cache), and from the disk (they are dropped from the cache,
which needs no rights). "one by one" is what diffusers does by itself, "side by side" with
HF_ENABLE_PARALLEL_LOADING. Ratios are to "one by one" of the same round: their median, and the interval
between order statistics that holds it in 95 %. On a CPU each page of the weights is touched, as the first
call would; on a GPU they are copied. The last line is the reading ahead of a run: files that it has read
while libraries are imported are loaded from memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from bench_overhead import ratio
from diffusers import FluxTransformer2DModel
from diffusers.models import modeling_utils

from mlenergy.diffusion.measure.window import synchronize
from mlenergy.diffusion.weights.files import cached_share, component_files, total_bytes
from mlenergy.diffusion.weights.read_ahead import ReadAhead

PLAIN = "one by one"
WAYS = (PLAIN, "side by side")
_SHARDS = 8
_HEADS, _BLOCK_PARAMETERS = 8, 15.7e6  # of a single block of 8 heads of 128 channels
_PAGE = 4096


def main() -> None:
    """Print the table, and write it where asked."""
    options = _options()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        files = save(Path(place), options.megabytes * 1e6, getattr(torch, options.file_dtype))
        found = {
            "bytes": total_bytes(files),
            "files": len(files),
            **vars(options),
            "folder": None,
            "json": None,
        }
        found["read_ahead_s"] = statistics.median(read_ahead_s(files) for _ in range(options.rounds))
        found["rows"] = [
            row for cold in (False, True) for row in compare(files, device, dtype, cold, options)
        ]
    print(as_table(found["rows"]))
    print(f"\nread ahead from the disk, {found['bytes'] / 1e6:.0f} MB: {found['read_ahead_s']:.3f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--megabytes", type=float, default=4000, help="of all shards together")
    parser.add_argument("--file_dtype", default="bfloat16", help="of the files")
    parser.add_argument("--dtype", default="bfloat16", help="of the loaded weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="on the disk to try; default: the system's for temporary files"
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def save(folder: Path, size: float, dtype: torch.dtype) -> list[Path]:
    """A transformer of about that many bytes, in shards that lie on the disk; returns its files."""
    blocks = max(1, round(size / dtype.itemsize / _BLOCK_PARAMETERS))
    with init_empty_weights():
        model = FluxTransformer2DModel(num_layers=0, num_single_layers=blocks, num_attention_heads=_HEADS)
    model = model.to(dtype).to_empty(device="cpu")
    for number, parameter in enumerate(model.parameters()):
        parameter.data.fill_(number % 7 - 3)
    model.save_pretrained(folder, max_shard_size=int(size / (_SHARDS - 0.5)))
    files = component_files(folder, None)
    for path in files:
        _drop(path)
    return files


def compare(
    files: Sequence[Path], device: torch.device, dtype: torch.dtype, cold: bool, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each way, over all rounds."""
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds + 1):
        found = {way: load(files, device, dtype, way, cold) for way in random.sample(WAYS, len(WAYS))}
        rounds += [found] if number else []  # the first one warms the libraries
    return [
        {
            "way": way,
            "from": "disk" if cold else "memory",
            "seconds": statistics.median(found[way]["seconds"] for found in rounds),
            "in_page_cache": statistics.median(found[way]["in_page_cache"] for found in rounds),
            "ratio": ratio([found[way]["seconds"] / found[PLAIN]["seconds"] for found in rounds]),
        }
        for way in WAYS
    ]


def load(
    files: Sequence[Path], device: torch.device, dtype: torch.dtype, way: str, cold: bool
) -> dict[str, float]:
    """Load once, and free it again."""
    for path in files:
        _drop(path) if cold else path.read_bytes()
    held = cached_share(files).share
    modeling_utils.HF_ENABLE_PARALLEL_LOADING = way != PLAIN
    began_s = time.perf_counter()
    model = FluxTransformer2DModel.from_pretrained(files[0].parent, dtype=dtype, device_map=str(device))
    synchronize(device)
    if device.type == "cpu":
        for parameter in model.parameters():
            parameter.data.view(-1).view(torch.uint8)[::_PAGE].sum()
    seconds = time.perf_counter() - began_s
    del model
    gc.collect()
    return {"seconds": seconds, "in_page_cache": float("nan") if held is None else held}


def read_ahead_s(files: Sequence[Path]) -> float:
    """Seconds in which files are brought from the disk into memory."""
    for path in files:
        _drop(path)
    ahead = ReadAhead(files)
    ahead.join()
    return float(ahead.end()["seconds"])


def _drop(path: Path) -> None:
    """Take a file out of the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| files | way | seconds | ÷ one by one | in memory before |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["ratio"]["median_ci95"]
        lines.append(
            f"| from {row['from']} | {row['way']} | {row['seconds']:.3f} | {row['ratio']['median']:.2f} "
            f"({low:.2f} to {high:.2f}) | {row['in_page_cache']:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
