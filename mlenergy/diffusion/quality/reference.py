"""Distance of a run's images from those of a reference run: PSNR and SSIM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from mlenergy.diffusion.config.plan import Plan
    from mlenergy.diffusion.prompts.sampling import Request

    Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_SIGMA_PX = 1.5  # of SSIM's Gaussian window, and its size, after Wang et al. 2004
_WINDOW_PX = 11
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@dataclass(frozen=True)
class Reference:
    """A finished run whose images stand for the exact ones."""

    folder: Path
    images: tuple[Path, ...]  # in the order of the requests


def find_reference(
    folder: Path,
    result: Mapping[str, Any] | None,
    plan: Plan,
    requests: Sequence[Request | Mapping[str, Any]],
) -> Reference:
    """The reference's images for these requests, before anything is measured.

    Args:
        folder: the reference's result folder.
        result: the content of its results.json, None where it has none of this program.
        plan: of the run that is compared with it.
        requests: those that the run makes whatever its stop rule says, or the entries of a finished result.

    Raises:
        UserError: no result with images is there, it is of another model, size, prompt or seed, or its own
            optimizations are not known to have acted.
    """
    if plan.makes_video:
        raise UserError("--reference compares images, and this is text to video; leave it out")
    if not plan.save_images:
        raise UserError("--reference compares images; leave --no_save_images out")
    if result is None:
        raise _unfit(folder, "it has no results.json of this program that can be read")
    if result.get("executed_failed"):
        raise _unfit(folder, "its result is not complete: it measured other work than it says")
    if result.get("effects_failed") or result.get("effects_pending"):
        raise _unfit(folder, "its result is not complete: its optimizations are not known to have acted")
    configuration = result["configuration"]
    of_run = {
        "model": plan.spec.model_id,
        "kind of weights": plan.weights_kind,
        "image size": f"{plan.width_px}x{plan.height_px}",
    }
    of_reference = {
        "model": configuration["model_id"],
        "kind of weights": result["weights"],
        "image size": f"{configuration['width_px']}x{configuration['height_px']}",
    }
    for what, value in of_run.items():
        if of_reference[what] != value:
            raise _unfit(folder, f"its {what} is {of_reference[what]}, this run's is {value}")
    return Reference(folder, tuple(_images(folder, result["generation_results"], requests)))


def similarity(reference: Reference, pixels: Iterable[Pixels]) -> dict[str, Any]:
    """PSNR and SSIM of every image, and their means.

    Args:
        reference: its images belong to the first of these.
        pixels: images, each uint8 (height, width, 3).

    Returns:
        `images` with `psnr_db` (null where the image is identical: it would be infinite) and `ssim`;
        means and minima over the images; `identical`, how many are the same in every byte.
    """
    pairs = zip(pixels, reference.images, strict=False)
    images = [_compare(index, image, saved_pixels(file)) for index, (image, file) in enumerate(pairs)]
    finite = [image["psnr_db"] for image in images if image["psnr_db"] is not None]
    ssims = [image["ssim"] for image in images]
    return {
        "reference": str(reference.folder),
        "identical": len(images) - len(finite),
        "psnr_db": {"mean": sum(finite) / len(finite), "minimum": min(finite)} if finite else None,
        "ssim": {"mean": sum(ssims) / len(ssims), "minimum": min(ssims)},
        "images": images,
    }


def psnr_db(image: Pixels, exact: Pixels) -> float | None:
    """Peak signal-to-noise ratio in decibels, 10 log10(255² / mean squared error); None if identical."""
    import numpy as np

    error = float(np.mean((image.astype(np.float64) - exact.astype(np.float64)) ** 2))
    return None if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(image: Pixels, exact: Pixels) -> float:
    """Structural similarity, mean over pixels and channels; 1 for identical images.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", 2004: a Gaussian window of 11 pixels and sigma 1.5, whole windows only.

    Args:
        image: uint8, (height, width, 3), at least 11 pixels each way.
        exact: of the same shape.
    """
    import numpy as np

    x, y = image.astype(np.float64), exact.astype(np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    denominator = (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    return float(np.mean(numerator / denominator))


def _blurred(values: Any) -> Any:
    """Means under the window, at the pixels where the whole of it lies in the image."""
    from scipy.ndimage import gaussian_filter

    half = _WINDOW_PX // 2
    blurred = gaussian_filter(values, sigma=(_SIGMA_PX, _SIGMA_PX, 0), radius=(half, half, 0))
    return blurred[half:-half, half:-half]


def _compare(index: int, image: Pixels, exact: Pixels) -> dict[str, Any]:
    return {"index": index, "psnr_db": psnr_db(image, exact), "ssim": ssim(image, exact)}


def _images(
    folder: Path, entries: Sequence[dict[str, Any]], requests: Sequence[Request | Mapping[str, Any]]
) -> list[Path]:
    if len(entries) < len(requests):
        raise _unfit(folder, f"it has {len(entries)} images, this run makes {len(requests)}")
    files = []
    for index, (request, entry) in enumerate(zip(requests, entries, strict=False)):
        own = request if isinstance(request, Mapping) else vars(request)
        for what in ("prompt", "seed"):
            if entry[what] != own[what]:
                raise _unfit(folder, f"{what} {index} is {entry[what]!r}, this run's is {own[what]!r}")
        if entry["image"] is None or not (folder / entry["image"]).is_file():
            raise _unfit(folder, f"image {index} was not saved")
        files.append(folder / entry["image"])
    return files


def saved_pixels(file: Path) -> Pixels:
    """A saved image as uint8, (height, width, 3).

    Raises:
        OSError: it is not there, or no image.
    """
    import numpy as np
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def _unfit(folder: Path, reason: str) -> UserError:
    return UserError(f"--reference {folder}: {reason}; give the folder of an exact run that fits this one")
