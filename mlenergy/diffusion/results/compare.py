"""Similarity of a finished run's saved images to a reference's, added to its results.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality.reference import find_reference, saved_pixels, similarity
from mlenergy.diffusion.results.read import read_result
from mlenergy.diffusion.results.save import save_result
from mlenergy.diffusion.results.verify import differences

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.results.paths import RunPaths


def compare_finished(paths: RunPaths, plan: Plan, reference: Path) -> dict[str, Any]:
    """Compare the images on disk; nothing that was measured changes.

    Args:
        paths: of the finished run; its lock has to be held.
        plan: of that run.
        reference: folder of the reference run.

    Returns:
        The content of results.json, with its new `similarity`.

    Raises:
        UserError: the reference does not fit, or images of this run were not saved, are no longer there or
            are no longer those that it made.
    """
    if plan.makes_video:
        raise UserError("--reference compares images, and this is text to video; leave it out")
    result = read_result(paths.results)
    if result is None:
        raise UserError(f"{paths.results} is gone; run again")
    if reference.resolve() == paths.folder.resolve():
        raise UserError(f"--reference {reference}: it is this run's own folder; give that of an exact run")
    changed = [] if "digests" not in result else differences(paths.folder)
    if changed:
        raise UserError(
            f"{paths.folder} cannot be compared: {changed[0]}; --overwrite_results measures again"
        )
    entries = result["generation_results"]
    files = [paths.folder / entry["image"] for entry in entries if entry.get("image") is not None]
    if len(files) < len(entries):
        raise UserError(
            f"{paths.folder} cannot be compared: its images were not saved; --overwrite_results without "
            "--no_save_images measures again"
        )
    found = find_reference(reference, read_result(reference / "results.json"), plan, entries)
    warnings = [warning for warning in result["warnings"] if warning["code"] != "no_similarity"]
    result = {**result, "similarity": similarity(found, map(saved_pixels, files)), "warnings": warnings}
    save_result(paths, result)
    return result
