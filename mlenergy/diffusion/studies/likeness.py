"""Likeness of a study's images to those of its baseline, image by image: PSNR and SSIM, kept in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlenergy.diffusion.quality.reference import Reference, saved_pixels, similarity
from mlenergy.diffusion.results.atomic import write_json
from mlenergy.diffusion.studies.content import Column, Gap, Measured
from mlenergy.diffusion.studies.outcome import Cell, StudyRun

_FILE = "likeness.json"
LIKENESS_COLUMNS = (
    Column("psnr_db", "PSNR, dB"),
    Column("ssim", "SSIM"),
    Column("identical_images", "identical"),
)


def measure_likeness(cells: Sequence[Cell], baseline: Cell | None, folder: Path) -> None:
    """Compare the images of every complete cell with the baseline's, unless that was done before.

    Of a cell's repeats, which draw the same prompts and seeds, the first complete one is compared.

    Args:
        cells: all but the baseline.
        baseline: its images stand for the exact ones.
        folder: of the study, where likeness.json is kept.
    """
    base = _first(baseline)
    known = _read(folder)
    found: dict[str, Any] = {}
    for cell in cells:
        run = _first(cell)
        if base is None or run is None or run.folder is None or reason_against(run, base) is not None:
            continue
        key = str(run.folder)
        mark = [_mark(base), _mark(run)]
        earlier = known.get(key, {})
        is_current = earlier.get("of") == mark and "reason" not in earlier
        found[key] = earlier if is_current else {"of": mark, **_compared(run, base)}
    if found != known:
        write_json(folder / _FILE, found)


def likeness_of(cell: Cell, baseline: Cell | None, folder: Path) -> dict[str, Measured | Gap | str | int]:
    """PSNR and SSIM of a cell, means over its images, under the keys of LIKENESS_COLUMNS.

    PSNR is the mean over the images that differ: of an identical one it is infinite.
    """
    base, run = _first(baseline), _first(cell)
    if run is None:
        return _gaps(cell.gap or "not measured")
    if base is None:
        return _gaps(f"the baseline has no result: {baseline.gap if baseline else 'it was not asked for'}")
    if run.folder == base.folder:
        return _gaps("it is the baseline itself")
    reason = reason_against(run, base)
    if reason is not None:
        return _gaps(reason)
    known = _read(folder).get(str(run.folder))
    if known is None or known["of"] != [_mark(base), _mark(run)]:
        return _gaps("not compared yet; mlenergy study run compares the images")
    if "reason" in known:
        return _gaps(str(known["reason"]))
    psnr_db, count = known["psnr_db"], len(known["images"])
    return {
        "psnr_db": Gap("identical in every byte") if psnr_db is None else Measured(psnr_db["mean"]),
        "ssim": Measured(known["ssim"]["mean"]),
        "identical_images": f"{known['identical']} of {count}",
    }


def reason_against(run: StudyRun, base: StudyRun) -> str | None:
    """The reason why two runs' images cannot be compared pixel by pixel; None where they can."""
    own, other = _facts(run.content), _facts(base.content)
    if own["model"] != other["model"]:
        return (
            f"{own['model']} is another model than {other['model']}: its image of a seed is another one, "
            "which PSNR and SSIM cannot judge"
        )
    different = next((what for what in own if own[what] != other[what]), None)
    if different is not None:
        return f"its {different} is {own[different]}, the baseline's is {other[different]}"
    images, base_images = run.content["generation_results"], base.content["generation_results"]
    if len(images) != len(base_images):
        return f"it has {len(images)} images, the baseline has {len(base_images)}"
    for what in ("prompt", "seed"):
        if [image[what] for image in images] != [image[what] for image in base_images]:
            return f"its {what}s are not the baseline's"
    if any(image["image"] is None for image in (*images, *base_images)):
        return "its images or the baseline's were not saved"
    return None


def image_files(run: StudyRun) -> list[Path]:
    """Files of a run's images, in the order of the prompts; none where they were not saved."""
    if run.folder is None:
        return []
    names = [image["image"] for image in run.content.get("generation_results", ())]
    return [run.folder / name for name in names if name is not None]


def _compared(run: StudyRun, base: StudyRun) -> dict[str, Any]:
    assert base.folder is not None
    reference = Reference(base.folder, tuple(image_files(base)))
    try:
        return similarity(reference, map(saved_pixels, image_files(run)))
    except (OSError, ValueError) as error:  # an image that is gone, or was changed
        return {"reason": f"its images cannot be compared: {' '.join(str(error).split())}"}


def _first(cell: Cell | None) -> StudyRun | None:
    return next((run for run in cell.runs if run.record is not None), None) if cell else None


def _facts(content: Mapping[str, Any]) -> dict[str, Any]:
    configuration = content["configuration"]
    return {
        "model": configuration["model_id"],
        "kind of weights": content["weights"],
        "image size": f"{configuration['width_px']}x{configuration['height_px']}",
    }


def _mark(run: StudyRun) -> str:
    """Text that changes when the run is measured again."""
    return f"{run.folder} of {run.content['date']}"


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / _FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _gaps(reason: str) -> dict[str, Measured | Gap | str | int]:
    return {column.key: Gap(reason) for column in LIKENESS_COLUMNS}
