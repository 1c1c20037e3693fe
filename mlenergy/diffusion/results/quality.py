"""Quality of a finished run's saved images, added to its results.json; nothing that was measured changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality.evaluate import (
    METRICS,
    OF_PAIRS,
    OF_SETS,
    Evaluation,
    Extractors,
    Progress,
    Settings,
)
from mlenergy.diffusion.quality.images import (
    IMAGE_COLUMN,
    TEXT_COLUMN,
    ImageSet,
    files_as_images,
    read_images,
)
from mlenergy.diffusion.quality.store import Store
from mlenergy.diffusion.results.digest import file_digest, is_as_written
from mlenergy.diffusion.results.lock import check_held, result_lock
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import is_complete, read_result
from mlenergy.diffusion.results.save import save_result
from mlenergy.diffusion.results.verify import differences

if TYPE_CHECKING:
    from mlenergy.diffusion.quality.distances import Statistics

STORE = "quality.sqlite"  # in the run's folder
NOT_COMPUTED = "not computed"
RANDOM = "random weights: the images are noise, whose values say nothing of the model"


@dataclass(frozen=True)
class Reference:
    """What a run's images are compared with, read once for several runs."""

    path: Path
    run: Mapping[str, Any] | None  # its result, where it is a finished run
    images: ImageSet | Statistics


def compute(
    run_folder: Path,
    metrics: Sequence[str] = (),
    reference: Path | Reference | None = None,
    extractors: Extractors | None = None,
    *,
    settings: Settings | None = None,
    other_runs: Sequence[Path] = (),
    try_random_weights: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Compute metrics and write each into results.json as soon as it is known.

    Values of single images are kept in the run's folder as they are computed, so that a call after an
    interrupted one goes on where that stopped.

    Args:
        run_folder: of a finished run that saved its images.
        metrics: of METRICS, clip and psnr for short; none for all that the reference and extractors allow.
        reference: a folder of images, a Parquet file, a file of statistics (FID alone), or a finished run.
        extractors: networks.
        settings: how to compute.
        other_runs: folders of runs that may know features of the same reference; they are only read.
        try_random_weights: compute metrics of a run with random weights too, marked as such.
        progress: called with what is computed, and how many images are done, of how many.

    Returns:
        The result's `quality`.

    Raises:
        UserError: the run, reference or extractor does not fit the metrics.
    """
    extractors, paths = extractors or Extractors(), RunPaths(run_folder, model_slug="")
    if not paths.results.is_file():  # before its lock, which would make the folder
        raise UserError(f"{run_folder} holds no results.json; name the folder of a finished run")
    with result_lock(paths.lock):
        result = _finished(paths, try_random_weights)
        of_reference = read_reference(reference) if isinstance(reference, Path) else reference
        wanted = chosen_metrics(metrics, of_reference, extractors)
        images = run_images(paths.folder, result)
        if of_reference is not None:
            _check_reference(run_folder, result, of_reference, wanted)
        with ExitStack() as stack:
            store = stack.enter_context(Store(paths.folder / STORE))
            folders = [*other_runs, *([] if of_reference is None else [of_reference.path])]
            others = [
                stack.enter_context(Store(one, read_only=True)) for one in _stores(folders, paths.folder)
            ]
            target = None if of_reference is None else of_reference.images
            evaluation = Evaluation(
                images, target, extractors, settings or Settings(), store, others, progress
            )
            section = dict(result.get("quality") or {})
            for name in wanted:
                section = _write(paths, name, evaluation.metric(name))
    return section


def chosen_metrics(asked: Sequence[str], reference: Reference | None, extractors: Extractors) -> list[str]:
    """The metrics to compute, in the order of METRICS.

    Raises:
        UserError: one is unknown or lacks its reference, or there is none to compute.
    """
    names = {"clip": "clip_score", "psnr": "psnr_db"}
    full = [names.get(name, name) for name in asked]
    unknown = next((name for name in full if name not in METRICS), None)
    if unknown is not None:
        raise UserError(f"--metrics: there is no {unknown!r}; use {', '.join(METRICS)}")
    has_images = reference is not None and isinstance(reference.images, ImageSet)
    possible = {
        "fid": reference is not None and extractors.inception is not None,
        "kid": has_images and extractors.inception is not None,
        "clip_score": extractors.clip is not None,
        "lpips": reference is not None and reference.run is not None and extractors.lpips is not None,
        "ssim": reference is not None and reference.run is not None,
        "psnr_db": reference is not None and reference.run is not None,
    }
    if not full:
        found = [name for name in METRICS if possible[name]]
        if not found:
            raise UserError(
                "nothing to compute: give --reference with --inception FILE (FID, KID), --reference RUN "
                "(SSIM, PSNR; with --lpips FILE also LPIPS), or --clip MODEL (CLIP score)"
            )
        return found
    for name in full:
        if name in OF_SETS and reference is None:
            raise UserError(f"{name} needs --reference: a folder of images, a Parquet file or a finished run")
        if name == "kid" and not has_images:
            raise UserError(
                "kid needs the reference's images, not a file of statistics; leave it out of --metrics"
            )
        if name in OF_PAIRS and (reference is None or reference.run is None):
            raise UserError(f"{name} compares pairs of images: give --reference the folder of a finished run")
    return [name for name in METRICS if name in full]


def read_reference(
    path: Path, *, image_column: str = IMAGE_COLUMN, text_column: str = TEXT_COLUMN
) -> Reference:
    """A finished run, a file of statistics, a folder of images or Parquet files.

    Raises:
        UserError: it is none of these, or lacks images.
    """
    folder = path.parent if path.name == "results.json" else path
    if (folder / "results.json").is_file():
        result = read_result(folder / "results.json")
        if result is None:
            raise UserError(f"--reference {path}: its results.json is cut off, or not of this program")
        _check_finished(folder, result, "--reference ")
        return Reference(folder, result, run_images(folder, result))
    if path.suffix == ".npz" and path.is_file():
        from mlenergy.diffusion.quality.distances import read_statistics  # torch

        return Reference(path, None, read_statistics(path))
    return Reference(path, None, read_images(path, image_column=image_column, text_column=text_column))


def run_images(folder: Path, result: Mapping[str, Any]) -> ImageSet:
    """The saved images of a result, each with its prompt, in the order of its requests.

    Those of a class-conditional model have no text: no prompt steered them, so none can be held against them.

    Raises:
        UserError: there are none, or some are not there.
    """
    entries = result["generation_results"]
    if not entries or any(entry["image"] is None for entry in entries):
        raise UserError(
            f"{folder}: its images were not saved, only its prompts are known; run again without "
            "--no_save_images (and with --overwrite_results)"
        )
    files = [
        (folder / entry["image"], entry["prompt"] if entry.get("class_id") is None else None)
        for entry in entries
    ]
    lacking = next((file for file, _ in files if not file.is_file()), None)
    if lacking is not None:
        raise UserError(f"{lacking} is no longer there; bring it back, or run again with --overwrite_results")
    known = (result.get("digests") or {}).get("files") or {}
    digests = [known.get(entry["image"]) or file_digest(folder / entry["image"]) for entry in entries]
    return files_as_images(str(folder), "run", files, digests)


def check_pairs(folder: Path, result: Mapping[str, Any], reference: Reference) -> None:
    """Refuse to compare image by image what was not made of the same prompts and seeds.

    Raises:
        UserError: says what differs.
    """
    assert reference.run is not None
    own, others = result["generation_results"], reference.run["generation_results"]
    start = f"--reference {reference.path}: its images cannot be paired with those of {folder}"
    end = "give a run of the same prompts and seeds, or --metrics fid"
    if len(own) != len(others):
        raise UserError(f"{start}: it has {len(others)} images, the run {len(own)}; {end}")
    for index, (one, other) in enumerate(zip(own, others, strict=True)):
        for what in ("prompt", "seed"):
            if one[what] != other[what]:
                raise UserError(
                    f"{start}: {what} {index + 1} is {str(other[what])[:80]!r}, the run's is "
                    f"{str(one[what])[:80]!r}; {end}"
                )


def _check_reference(
    folder: Path, result: Mapping[str, Any], reference: Reference, metrics: Sequence[str]
) -> None:
    """Refuse a reference of noise, and pairs that are none."""
    if reference.path.resolve() == folder.resolve():
        raise UserError(f"--reference {reference.path}: it is the run itself; give another run")
    if reference.run is not None and reference.run["weights"] == "random" and result["weights"] != "random":
        raise UserError(
            f"--reference {reference.path}: its weights are random, so its images are noise; give a run with "
            "pretrained weights"
        )
    if any(name in OF_PAIRS for name in metrics):
        check_pairs(folder, result, reference)


def _finished(paths: RunPaths, try_random_weights: bool) -> dict[str, Any]:
    result = read_result(paths.results)
    if result is None:
        raise UserError(f"{paths.results} is cut off, or not of this program; run again")
    _check_finished(paths.folder, result, "")
    if result["weights"] == "random" and not try_random_weights:
        raise UserError(
            f"{paths.folder}: its model {result['model_id']} has random weights, so its images are noise, "
            "whose quality says nothing; run it with pretrained weights (--try_random_weights tries it out)"
        )
    return result


def _check_finished(folder: Path, result: Mapping[str, Any], option: str) -> None:
    """Refuse a result that is not complete or not as its run wrote it."""
    if not is_complete(RunPaths(folder, model_slug="")):
        raise UserError(f"{option}{folder}: its result is not complete; mlenergy doctor {folder} says more")
    changed = differences(folder) if "digests" in result else []
    if changed:
        raise UserError(f"{option}{folder}: {changed[0]}; its images cannot be trusted: run it again")


def _write(paths: RunPaths, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Add a metric to results.json as it is now; the folder's lock is held."""
    check_held(paths.lock)
    result = read_result(paths.results)
    if result is None or not is_as_written(result):
        raise UserError(f"{paths.results} was changed meanwhile; nothing is added to it: start again")
    metrics = {**(result.get("quality") or {}).get("metrics", {}), name: entry}
    section = quality_section(metrics, result["weights"])
    save_result(paths, {**result, "quality": section})
    return section


def quality_section(metrics: Mapping[str, Mapping[str, Any]], weights: str) -> dict[str, Any]:
    """The result's `quality`: each metric's value or reason at the top, and all that belongs to it below.

    Values of random weights stand below alone, so that no table, comparison or export shows them.
    """
    top: dict[str, Any] = {}
    for name in METRICS:
        entry = metrics.get(name)
        value = None if entry is None or weights == "random" else entry["value"]
        reason = NOT_COMPUTED if entry is None else RANDOM if weights == "random" else entry["reason"]
        top |= {name: value, f"{name}_reason": None if value is not None else reason}
    return {**top, "of_random_weights": weights == "random", "metrics": dict(metrics)}


def _stores(folders: Sequence[Path], own: Path) -> list[Path]:
    return [one / STORE for one in folders if (one / STORE).is_file() and one.resolve() != own.resolve()]
