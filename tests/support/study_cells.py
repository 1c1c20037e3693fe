"""Cells of a study with known figures and images, as its runs would leave them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import result_folders
from PIL import Image

from mlenergy.diffusion.results.read import load_result
from mlenergy.diffusion.studies.outcome import Cell, StudyRun
from mlenergy.diffusion.sweep.options import full_name


def measured(
    folder: Path,
    options: Mapping[str, Any],
    seconds: Sequence[float] = (8.0, 8.4),
    *,
    pixels: Sequence[np.ndarray] = (),
    of_content: Mapping[str, Any] | None = None,
    **of_result: Any,
) -> Cell:
    """A cell with one complete run.

    Args:
        folder: of its result.
        options: of `mlenergy run`, by short or full name.
        seconds: of each window.
        pixels: its images, uint8, one for each; none: not saved.
        of_content: keys of results.json to replace.
        of_result: as result_folders.result takes them.
    """
    content = result_folders.result(seconds, batch_size=1, images=bool(pixels), **of_result)
    for image, entry in zip(pixels, content["generation_results"], strict=bool(pixels)):
        file = folder / entry["image"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    result_folders.save(folder, json.dumps({**content, **(of_content or {})}))
    record = load_result(folder / "results.json").record
    assert record.state == "complete", record.reason
    return _cell(options, StudyRun(1, "label", {}, 1, "complete", record, None, folder))


def refused(options: Mapping[str, Any], reason: str) -> Cell:
    """A cell that the plan refuses."""
    return _cell(options, StudyRun(1, "label", {}, 1, "pruned", None, reason, None))


def failed(options: Mapping[str, Any], reason: str) -> Cell:
    """A cell whose run failed."""
    return _cell(options, StudyRun(1, "label", {}, 1, "failed", None, reason, None))


def _cell(options: Mapping[str, Any], run: StudyRun) -> Cell:
    return Cell("runs", "label", {full_name(name): value for name, value in options.items()}, (run,))
