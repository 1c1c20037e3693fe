"""Check that a result on disk is as its run wrote it: results.json, requests.json, images and timeline."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlenergy.diffusion.results.digest import content_digest, file_digest, is_as_written
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import read_result
from mlenergy.diffusion.results.units import unit_of

_CLOSE = 1e-9  # relative: sums in another order


def differences(folder: Path) -> list[str]:
    """One line for everything that is not as it was written; empty for an intact result.

    Args:
        folder: with results.json.

    Raises:
        UserError: results.json cannot be read, or was written by a newer version of this program.
    """
    paths = RunPaths(folder, model_slug="")
    result = read_result(paths.results)
    if result is None:
        there = paths.results.exists()
        return ["results.json is cut off, or not of this program" if there else "results.json is missing"]
    found = list(_figures(result))
    digests = result.get("digests")
    if not isinstance(digests, dict):
        version = result.get("schema_minor_version", 0)
        return [
            *found,
            f"results.json has no digests (schema_minor_version {version}): nothing to compare with",
        ]
    if not is_as_written(result):
        found.insert(0, "results.json was changed after it was written")
    return [*found, *_requests(paths, digests), *_files(paths, result, digests)]


def _requests(paths: RunPaths, digests: Mapping[str, Any]) -> Iterator[str]:
    try:
        content = json.loads(paths.requests.read_bytes())
    except OSError as error:
        yield f"requests.json: {error.strerror}"
    except ValueError:
        yield "requests.json is cut off"
    else:
        if content_digest(content) != digests.get("requests"):
            yield "requests.json was changed after it was written"


def _files(paths: RunPaths, result: Mapping[str, Any], digests: Mapping[str, Any]) -> Iterator[str]:
    known: Mapping[str, str] = digests.get("files") or {}
    for name, digest in known.items():
        try:
            is_same = file_digest(paths.folder / name) == digest
        except OSError as error:
            yield f"{name}: {error.strerror}"
        else:
            if not is_same:
                yield f"{name} was changed after it was written"
    key = unit_of(result).file
    for output in result["generation_results"]:
        if output.get(key) is not None and output[key] not in known:
            yield f"{output[key]} is named by results.json, which has no digest of it"


def _figures(result: Mapping[str, Any]) -> Iterator[str]:
    """Figures at the top that do not follow from the windows that they sum up."""
    try:
        windows, unit = result["iterations"], unit_of(result)
        count = sum(window[unit.count] for window in windows)
        seconds = math.fsum(window["duration_s"] for window in windows)
        energies = [window["energy_j"] for window in windows]
        joules = None if None in energies else math.fsum(energies)
        expected = {
            "completed": count,
            "generation_time": seconds,
            unit.throughput: count / seconds,
            unit.mean_time: seconds / count,
            "total_energy_j": joules,
            unit.energy: None if joules is None else joules / count,
        }
        for name, value in expected.items():
            if not _agrees(result[name], value):
                yield f"{name} is {result[name]}, its windows make it {value}"
    except (KeyError, TypeError, ZeroDivisionError) as error:
        yield f"results.json has windows that make no sense ({type(error).__name__}: {error})"


def _agrees(written: Any, expected: float | None) -> bool:
    if written is None or expected is None:
        return written is expected
    return math.isclose(written, expected, rel_tol=_CLOSE)
